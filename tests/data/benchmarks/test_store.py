"""Where tables come from: the hub, a clone, what save_to_disk wrote, or folders of Parquet files."""

import sys

import datasets
import huggingface_hub
import pytest
from tests.data.benchmarks import copies

from kvw.bench.benchmarks import BENCHMARKS, get_benchmark
from kvw.data.benchmarks.store import Columns, Store
from kvw.errors import UserError

MLLMU = get_benchmark("mllmu")


@pytest.fixture(scope="module")
def folder(mllmu_folder):
    return mllmu_folder


@pytest.fixture(scope="module")
def data(mllmu):
    return mllmu


def test_the_hub_is_read_by_the_same_calls_as_a_copy(tmp_path, folder, data, monkeypatch):
    """``load_dataset(id, configuration)`` on the hub is ``load_dataset(folder, configuration)`` on a copy."""
    training = copies.mllmu_training(tmp_path / "training")
    places = {"MLLMMU/MLLMU-Bench": folder, "MLLMMU/baseline_train_split": training}
    load, asked = datasets.load_dataset, []

    def hub(path, name, **options):
        assert options == {}
        asked.append((path, name))
        return load(str(places[path]), name)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    other = MLLMU.load(None, "forget_5")
    assert other.splits == data.splits
    assert asked == [
        ("MLLMMU/MLLMU-Bench", "forget_5"),
        ("MLLMMU/MLLMU-Bench", "retain_95"),
        ("MLLMMU/MLLMU-Bench", "Test_Set"),
        ("MLLMMU/MLLMU-Bench", "Retain_Set"),
        ("MLLMMU/baseline_train_split", "forget_5"),
        ("MLLMMU/baseline_train_split", "retain_95"),
    ]


def test_files_of_the_hub_are_downloaded_and_read_like_a_copy(tmp_path, monkeypatch):
    folder, asked = copies.fiubench(tmp_path / "c", archive=True), []

    def download(repo_id, *, repo_type, allow_patterns):
        asked.append((repo_id, repo_type, allow_patterns))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    fiubench = get_benchmark("fiubench")
    assert fiubench.load(None, "forget5") == fiubench.load(folder, "forget5")
    assert {patterns[0] for _, _, patterns in asked} == {"split.json", "SFHQ.zip", "full.json", "prompt.json"}
    assert {(repo_id, kind) for repo_id, kind, _ in asked} == {("gray311/FIUBench", "dataset")}


@pytest.mark.thorough
def test_published_folds_of_the_hub_are_downloaded_because_save_to_disk_wrote_them(tmp_path, monkeypatch):
    folder, folds = copies.clear(tmp_path / "c"), copies.clear_folds(tmp_path / "folds")
    load, asked = datasets.load_dataset, []
    monkeypatch.setattr(datasets, "load_dataset", lambda path, name: load(str(folder), name))

    def download(repo_id, *, repo_type, allow_patterns):
        asked.append((repo_id, allow_patterns))
        return str(folds)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert len(get_benchmark("clear").load(None, "forget05").published_folds) == 2
    patterns = ["forget05_perturbed_1/*", "forget05_perturbed_2/*"]
    assert asked == [("yejinkim/clear-two-fold-val", patterns)]


@pytest.mark.parametrize("name", ["mllmu", "fiubench"])
def test_a_data_set_that_cannot_be_reached_is_one_message(name):
    with pytest.raises(UserError, match="cannot be loaded") as raised:
        get_benchmark(name).load()
    assert get_benchmark(name).hub_id in raised.value.what


def test_folders_of_parquet_files_without_a_readme_are_read(tmp_path, data):
    folder = copies.mllmu(tmp_path / "c")
    (folder / "README.md").unlink()
    assert MLLMU.load(folder, "forget_5") == data


@pytest.mark.thorough
def test_what_save_to_disk_wrote_is_read(tmp_path, data):
    for name, rows in copies.mllmu_tables().items():
        table = datasets.Dataset.from_list(rows, features=copies.mllmu_features(name))
        datasets.DatasetDict({"train": table}).save_to_disk(tmp_path / "saved" / name)
    assert MLLMU.load(tmp_path / "saved", "forget_5") == data


@pytest.mark.thorough
def test_a_copy_that_has_changed_is_not_read_from_the_cache(tmp_path):
    tofu = get_benchmark("tofu")
    folder = copies.tofu(tmp_path / "copy")
    first = tofu.load(folder, "forget10").task("forget", "question").items[0]
    path = folder / "forget10_perturbed.json"
    path.write_text(path.read_text().replace("Gregor Mendel Al-Kuwaiti", "Somebody Else"))
    second = tofu.load(folder, "forget10").task("forget", "question").items[0]
    assert first.perturbed[0].startswith("Gregor Mendel")
    assert second.perturbed[0].startswith("Somebody Else")


@pytest.mark.thorough
def test_two_copies_of_one_name_are_two_data_sets(tmp_path):
    tofu = get_benchmark("tofu")
    counts = []
    for place, kept in (("a", 4), ("b", 2)):

        def shorten(tables, kept=kept):
            del tables["world_facts_perturbed"][kept:]

        data = tofu.load(copies.tofu(tmp_path / place / "copy", shorten), "forget10")
        counts.append(len(data.task("world_facts", "question").items))
    assert counts == [4, 2]


def test_a_missing_table_is_an_error_that_names_the_closest_one(folder):
    with pytest.raises(UserError, match="no table 'forget_15'") as raised:
        MLLMU.load(folder, "forget_15")
    assert raised.value.do == "did you mean 'forget_5'?"


def test_a_table_without_files_is_an_error(tmp_path):
    (tmp_path / "forget_5").mkdir()
    with pytest.raises(UserError, match="The table forget_5 is empty"):
        MLLMU.load(tmp_path, "forget_5")


def test_a_table_with_two_splits_is_an_error(tmp_path):
    rows = [{"id": "1"}]
    table = datasets.Dataset.from_list(rows)
    datasets.DatasetDict({"train": table, "test": table}).save_to_disk(tmp_path / "both")
    with pytest.raises(UserError, match="more than one split") as raised:
        Store(tmp_path).table("both", Columns(("id",)))
    assert raised.value.found == "train, test"


@pytest.mark.parametrize("source", ["nowhere", "./nowhere/at-all", "a/b/c"])
def test_a_source_that_is_neither_folder_nor_hub_id_is_an_error(source):
    with pytest.raises(UserError, match="neither a folder nor a hub id"):
        MLLMU.load(source)


def test_an_index_that_pandas_left_behind_is_no_unknown_column(tmp_path):
    table = datasets.Dataset.from_list([{"id": "1", "__index_level_0__": 0}])
    table.save_to_disk(tmp_path / "facts")
    assert next(Store(tmp_path).table("facts", Columns(("id",))))["id"] == "1"


def test_names_are_checked_and_the_closest_is_proposed(folder):
    with pytest.raises(UserError) as raised:
        get_benchmark("mlmu")
    assert raised.value.do == "did you mean 'mllmu'?"
    with pytest.raises(UserError, match="no setting 'forget_20'"):
        MLLMU.load(folder, "forget_20")
    with pytest.raises(UserError, match="no further source 'trainig'") as raised:
        MLLMU.load(folder, "forget_5", others={"trainig": folder})
    assert raised.value.do == "did you mean 'training'?"


def test_splits_and_tasks_are_checked_and_the_closest_is_proposed(data):
    with pytest.raises(UserError, match="no split 'retian'") as raised:
        data.task("retian", "cloze_text")
    assert raised.value.do == "did you mean 'retain'?"
    with pytest.raises(UserError, match="no task 'cloze' in MLLMU-Bench / forget"):
        data.task("forget", "cloze")


def test_without_the_package_the_error_names_the_extra(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UserError, match="needs the package datasets") as raised:
        MLLMU.load(folder, "forget_5")
    assert raised.value.do == "pip install 'kvw[bench]'"


@pytest.mark.parametrize("name", BENCHMARKS)
def test_every_benchmark_says_where_it_comes_from(name):
    benchmark = get_benchmark(name)
    assert benchmark.name == name
    made_on_the_spot = name.startswith("toy") or name == "people"
    assert benchmark.hub_id.count("/") == (0 if made_on_the_spot else 1)
    assert benchmark.licence
    assert benchmark.paper
    assert benchmark.settings
