import json

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from kvw.data import Example, read_examples
from kvw.errors import UserError

GOOD = {"question": "Who?", "answer": "Ada"}


def write_jsonl(path, rows):
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "portraits").mkdir()
    for name in ("portraits/a.png", "portraits/b.png"):
        Image.new("RGB", (4, 3), (10, 20, 30)).save(tmp_path / name)
    return tmp_path


def test_jsonl_gives_examples_in_order_with_identifiers_images_and_metadata(folder):
    rows = [
        {**GOOD, "image": "portraits/a.png", "subject": "ada", "year": 1815},
        {**GOOD, "images": ["portraits/a.png", str(folder / "portraits/b.png")], "id": "x7"},
        {**GOOD, "file_name": "portraits/b.png", "id": 5},
        {**GOOD, "image": None, "images": [], "file_name": ""},
    ]
    path = write_jsonl(folder / "forget.jsonl", rows)
    a, b = folder / "portraits/a.png", folder / "portraits/b.png"
    assert read_examples(path) == [
        Example("Who?", "Ada", (a,), "forget.jsonl:1", {"subject": "ada", "year": 1815}),
        Example("Who?", "Ada", (a, b), "forget.jsonl:x7"),
        Example("Who?", "Ada", (b,), "forget.jsonl:5"),
        Example("Who?", "Ada", (), "forget.jsonl:4"),
    ]


def test_text_is_kept_as_it_is(tmp_path):
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": " Wer? \n", "answer": "\tÅsa 🦊 \u2028 x "}])
    (example,) = read_examples(path)
    assert (example.question, example.answer) == (" Wer? \n", "\tÅsa 🦊 \u2028 x ")


def test_byte_order_mark_blank_lines_windows_ends_and_raw_separators_are_tolerated(tmp_path):
    path = tmp_path / "d.JSONL"
    line = json.dumps({"question": "Q\u2028\x85", "answer": "A"}, ensure_ascii=False)
    path.write_bytes(b"\xef\xbb\xbf\r\n" + line.encode() + b"\r\n\r\n  \n" + line.encode())
    examples = read_examples(path)
    assert [example.identifier for example in examples] == ["d.JSONL:2", "d.JSONL:5"]
    assert examples[0].question == "Q\u2028\x85"


def test_csv(folder):
    path = folder / "d.csv"
    path.write_text(
        "\ufeffquestion,answer,image,id,task\r\n"
        '"Who, exactly?","Ada ""the first""\r\nLovelace",portraits/a.png,,caption\r\n'
        "\r\n"
        'Who?,007,"[""portraits/a.png"", ""portraits/b.png""]",9,\r\n'
        "Who?,Ada,,,\r\n",
        encoding="utf-8",
        newline="",
    )
    a, b = folder / "portraits/a.png", folder / "portraits/b.png"
    assert read_examples(path) == [
        Example("Who, exactly?", 'Ada "the first"\r\nLovelace', (a,), "d.csv:1", {"task": "caption"}),
        Example("Who?", "007", (a, b), "d.csv:9", {"task": ""}),
        Example("Who?", "Ada", (), "d.csv:3", {"task": ""}),
    ]


def test_parquet_with_hub_images(folder):
    data = (folder / "portraits/a.png").read_bytes()
    images = [
        {"bytes": data, "path": "somewhere/else.png"},
        {"bytes": None, "path": "portraits/b.png"},
        {"bytes": None, "path": None},
        None,
    ]
    path = folder / "d.parquet"
    table = {"question": ["Q"] * 4, "answer": ["A"] * 4, "image": images, "n": [1, 2, 3, 4]}
    parquet.write_table(pyarrow.table(table), path)
    examples = read_examples(path)
    assert [example.images for example in examples] == [(data,), (folder / "portraits/b.png",), (), ()]
    assert [example.identifier for example in examples] == [f"d.parquet:{row}" for row in (1, 2, 3, 4)]
    assert examples[3].metadata == {"n": 4}


def test_parquet_with_lists_of_images_and_of_paths(folder):
    data = (folder / "portraits/a.png").read_bytes()
    rows = [[{"bytes": data, "path": None}, {"bytes": None, "path": "portraits/b.png"}], [], None]
    parquet.write_table(
        pyarrow.table({"question": ["Q"] * 3, "answer": ["A"] * 3, "images": rows}), folder / "structs.parquet"
    )
    found = [example.images for example in read_examples(folder / "structs.parquet")]
    assert found == [(data, folder / "portraits/b.png"), (), ()]
    parquet.write_table(
        pyarrow.table({"question": ["Q"], "answer": ["A"], "image": ["portraits/a.png"]}), folder / "p.parquet"
    )
    assert read_examples(folder / "p.parquet")[0].images == (folder / "portraits/a.png",)


@pytest.mark.parametrize("extension", ["jsonl", "csv", "parquet"])
def test_image_folder(folder, extension):
    metadata = folder / f"metadata.{extension}"
    row = {"file_name": "portraits/a.png", **GOOD}
    if extension == "jsonl":
        write_jsonl(metadata, [row])
    elif extension == "csv":
        metadata.write_text(",".join(row) + "\n" + ",".join(row.values()) + "\n")
    else:
        parquet.write_table(pyarrow.table({key: [value] for key, value in row.items()}), metadata)
    expected = Example("Who?", "Ada", (folder / "portraits/a.png",), f"metadata.{extension}:1")
    assert read_examples(folder) == [expected]
    assert read_examples(str(folder)) == [expected]


@pytest.mark.parametrize(
    ("row", "parts"),
    [
        ({"question": "Q"}, ["d.jsonl:1: the answer is missing", "columns question", "add a column 'answer'"]),
        ({"question": "Q", "answer": None}, ["d.jsonl:1: the answer is null"]),
        ({"question": "Q", "answer": ""}, ["d.jsonl:1: the answer is empty", "''"]),
        ({"question": "Q", "answer": " \n\t"}, ["d.jsonl:1: the answer is empty"]),
        ({"question": "Q", "answer": 1987}, ["d.jsonl:1: the answer is not a text", "int 1987", "quotes"]),
        ({"question": "Q", "answer": ["A", "B"]}, ["d.jsonl:1: the answer is not a text", "list", "one text"]),
        ({"answer": "A"}, ["d.jsonl:1: the question is missing"]),
        ({"question": "", "answer": "A"}, ["d.jsonl:1: the question is empty"]),
        ({"question": {"x": 1}, "answer": "A"}, ["d.jsonl:1: the question is not a text", "dict"]),
        ({"question": "Q", "Answer": "A"}, ["answer is missing", "rename the column 'Answer' to 'answer'"]),
        ({"question": "Q", "answers": "A"}, ["answer is missing", "rename the column 'answers' to 'answer'"]),
        ({}, ["d.jsonl:1: the question is missing", "(none)"]),
        ({"question": "Q", "id": "k3"}, ["d.jsonl:k3: the answer is missing"]),
        ({**GOOD, "id": [1]}, ["d.jsonl:1: the id is not a text or a number", "[1]"]),
        ({**GOOD, "image": "no.png"}, ["d.jsonl:1: the image file does not exist", "no.png", "relative to"]),
        ({**GOOD, "image": "."}, ["d.jsonl:1: the image file does not exist"]),
        ({**GOOD, "image": "a\x00b"}, ["d.jsonl:1: the image file does not exist"]),
        ({**GOOD, "image": "https://x.org/a.png"}, ["does not exist", "https://x.org/a.png", "download it"]),
        ({**GOOD, "images": ["a", 3]}, ["d.jsonl:1: the image file does not exist", "/a"]),
        ({**GOOD, "images": [3]}, ["d.jsonl:1: an image is neither a path nor image data", "int 3"]),
        ({**GOOD, "images": [None]}, ["d.jsonl:1: an image is neither a path nor image data", "NoneType"]),
        ({**GOOD, "image": {"url": "x"}}, ["d.jsonl:1: an image is neither a path nor image data", "'url'"]),
        ({**GOOD, "image": {}}, ["d.jsonl:1: an image is neither a path nor image data", "dict {}"]),
        ({**GOOD, "image": "a", "file_name": "b"}, ["more than one column names images", "image, file_name"]),
    ],
)
def test_row_errors_name_the_example(tmp_path, row, parts):
    path = write_jsonl(tmp_path / "d.jsonl", [row])
    with pytest.raises(UserError) as raised:
        read_examples(path)
    for part in parts:
        assert part in str(raised.value)


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("d.jsonl", b"", ["no examples", "d.jsonl"]),
        ("d.jsonl", b"\n \n", ["no examples"]),
        ("d.csv", b"", ["no examples"]),
        ("d.csv", b"question,answer\n", ["no examples"]),
        ("d.txt", b"x", ["kind of data file", "d.txt", ".jsonl, .csv, .parquet"]),
        ("d", b"x", ["kind of data file"]),
        ("d.jsonl", b'{"question": "Q", "answer": "A"}\n\n{"question": ', ["d.jsonl:3: the line is not JSON"]),
        ("d.jsonl", b"question,answer\n", ["d.jsonl:1: the line is not JSON", "question,answer"]),
        ("d.jsonl", b'["Q", "A"]\n', ["d.jsonl:1: the line is not a JSON object", '["Q", "A"]']),
        ("d.jsonl", b"null\n", ["d.jsonl:1: the line is not a JSON object"]),
        ("d.jsonl", b'{"question": "Q",\n "answer": "\xff"}', ["d.jsonl:2: the text is not UTF-8", "0xff"]),
        ("d.jsonl", '{"question": "é"}'.encode("utf-16"), ["d.jsonl:1: the text is not UTF-8"]),
        ("d.csv", "question,answer\nQ,é\n".encode("latin-1"), ["d.csv:2: the text is not UTF-8"]),
        ("d.csv", b"question,answer\nQ,A,extra\n", ["d.csv:1: the row does not fit", "3 cells for 2", "line 2"]),
        ("d.csv", b"question,answer\nQ\n", ["d.csv:1: the row does not fit", "1 cells for 2"]),
        ("d.csv", b'question,answer\nQ,"A\n', ["d.csv: the file is not valid CSV", "line 2"]),
        ("d.csv", b"question,answer,answer\nQ,A,B\n", ["d.csv: a column name occurs twice", "answer"]),
        ("d.csv", b"question,answer\nQ,\n", ["d.csv:1: the answer is empty"]),
        ("d.csv", b"question,reply\nQ,A\n", ["d.csv:1: the answer is missing", "columns question, reply"]),
        ("d.csv", b'question,answer,image\nQ,A,"[a.png]"\n', ["d.csv:1: the list of images is not JSON"]),
        ("d.parquet", b"not parquet at all", ["d.parquet: the file is not valid Parquet"]),
        ("d.parquet", b"", ["d.parquet: the file is not valid Parquet"]),
    ],
)
def test_file_errors(tmp_path, name, content, parts):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError) as raised:
        read_examples(path)
    for part in parts:
        assert part in str(raised.value)


def test_parquet_rows_are_checked_as_well(tmp_path):
    parquet.write_table(pyarrow.table({"question": ["Q", "Q"], "answer": ["A", None]}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"d\.parquet:2: the answer is null"):
        read_examples(tmp_path / "d.parquet")
    parquet.write_table(pyarrow.table({"question": pyarrow.array([], pyarrow.string())}), tmp_path / "empty.parquet")
    with pytest.raises(UserError, match="no examples"):
        read_examples(tmp_path / "empty.parquet")


def test_missing_file_and_folders_without_one_metadata_file(folder):
    with pytest.raises(UserError, match="does not exist"):
        read_examples(folder / "nowhere.jsonl")
    with pytest.raises(UserError, match=r"exactly one metadata file[\s\S]*none of them"):
        read_examples(folder)
    write_jsonl(folder / "metadata.jsonl", [GOOD])
    (folder / "metadata.csv").write_text("question,answer\nQ,A\n")
    with pytest.raises(UserError, match=r"metadata\.jsonl, metadata\.csv in"):
        read_examples(folder)
