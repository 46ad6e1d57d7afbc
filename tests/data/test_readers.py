import base64
import datetime
import json
import os
from pathlib import Path

import pyarrow
import pytest
from PIL import Image
from pyarrow import parquet

from kvw.data import Example, read_examples, readers, tables
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
        Example("Who, exactly?", 'Ada "the first"\r\nLovelace', (a,), "d.csv:2", {"task": "caption"}),
        Example("Who?", "007", (a, b), "d.csv:9", {"task": ""}),
        Example("Who?", "Ada", (), "d.csv:6", {"task": ""}),
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
    number = 2 if extension == "csv" else 1
    expected = Example("Who?", "Ada", (folder / "portraits/a.png",), f"metadata.{extension}:{number}")
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
        ({"prompt": "Q"}, ["d.jsonl:1: the completion is missing", "add a column 'completion'"]),
        ({"completion": "A"}, ["d.jsonl:1: the prompt is missing"]),
        ({"prompt": "Q", "response": "A"}, ["question is missing", "--columns question=prompt,answer=response"]),
        ({"question": "", "answer": "A"}, ["d.jsonl:1: the question is empty"]),
        ({"question": {"x": 1}, "answer": "A"}, ["d.jsonl:1: the question is not a text", "dict"]),
        ({"question": "Q", "Answer": "A"}, ["answer is missing", "rename the column 'Answer' to 'answer'"]),
        ({"question": "Q", "answers": "A"}, ["answer is missing", "rename the column 'answers' to 'answer'"]),
        ({}, ["d.jsonl:1: the question is missing", "(none)"]),
        ({"question": "Q", "id": "k3"}, ["d.jsonl:k3: the answer is missing"]),
        ({**GOOD, "id": [1]}, ["d.jsonl:1: the id is not a text or a number", "[1]"]),
        ({**GOOD, "image": "no.png"}, ["d.jsonl:1: the image file does not exist", "no.png", "relative to"]),
        ({**GOOD, "image": "."}, ["d.jsonl:1: the image is a folder"]),
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
        ("d.pdf", b"x", ["kind of data file", "d.pdf", "save its text as .txt"]),
        ("d.bin", b"x", ["kind of data file", "d.bin", ".jsonl, .json, .csv"]),
        ("d", b"x", ["kind of data file"]),
        ("d.jsonl", b'{"question": "Q", "answer": "A"}\n\n{"question": ', ["d.jsonl:3: the line is not JSON"]),
        ("d.jsonl", b"question,answer\n", ["d.jsonl:1: the line is not JSON", "question,answer"]),
        ("d.jsonl", b'["Q", "A"]\n', ["d.jsonl:1: the line is not a JSON object", '["Q", "A"]']),
        ("d.jsonl", b"null\n", ["d.jsonl:1: the line is not a JSON object"]),
        ("d.jsonl", b'{"question": "Q",\n "answer": "\xff"}', ["d.jsonl:2: the text is not UTF-8", "0xff"]),
        ("d.jsonl", '{"question": "é"}'.encode("utf-16"), ["d.jsonl:1: the answer is missing"]),
        ("d.jsonl", '{"question": "é"}'.encode("utf-16-le"), ["d.jsonl: the text is not UTF-8", "UTF-16 without"]),
        ("d.jsonl", '{"question": "é"}'.encode("utf-16") + b"x", ["d.jsonl: the text is broken UTF-16"]),
        ("d.csv", "question,answer\nQ,é\n".encode("latin-1"), ["d.csv:2: the text is not UTF-8"]),
        ("d.csv", b"question,answer\nQ,A,extra\n", ["d.csv:2: the row does not fit", "3 cells for 2"]),
        ("d.csv", b"question,answer\nQ\n", ["d.csv:2: the row does not fit", "1 cell for 2"]),
        ("d.csv", b'question,answer\nQ,"A\n', ["d.csv: the file is not valid CSV", "line 2"]),
        ("d.csv", b"question,answer,answer\nQ,A,B\n", ["d.csv: a column name occurs twice", "answer"]),
        ("d.csv", b"question,answer\nQ,\n", ["d.csv:2: the answer is empty"]),
        ("d.csv", b"question,reply\nQ,A\n", ["d.csv:2: the answer is missing", "columns question, reply"]),
        ("d.csv", b'question,answer,image\nQ,A,"[a.png]"\n', ["d.csv:2: the list of images is not JSON"]),
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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.txt", b"a\xff", r"byte 0xff .*\ndo: save the file as UTF-8$"),
        ("d.jsonl", "a".encode("utf-16-le"), r"do: save the file as UTF-8$"),
        ("d.csv", b"a\xff", r"do: save the file as UTF-8; a spreadsheet calls it 'CSV UTF-8'$"),
        ("d.jsonl", b'["Q", "A"]\n', r"""found: \["Q", "A"\]\ndo: write one object"""),
        ("d.jsonl", b'{"question": "Q', r"found: Unterminated string starting at character 14 of"),
        ("d.jsonl", b'{"question": "Q\t"}', r"found: Invalid control character at character 16 of"),
    ],
)
def test_messages_about_texts_are_in_plain_english(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_examples(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "opens"), [("d.xlsx", "zipfile.ZipFile"), ("d.parquet", "pyarrow.parquet.ParquetFile")]
)
def test_a_file_that_may_not_be_read_is_not_called_invalid(tmp_path, monkeypatch, name, opens):
    def refuse(path, *_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(opens, refuse)
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=rf"cannot be read\.\nfound: .*{name}'\ndo: check who may read it"):
        read_examples(tmp_path / name)


def test_missing_file_and_folders_without_one_metadata_file(folder):
    with pytest.raises(UserError, match="does not exist"):
        read_examples(folder / "nowhere.jsonl")
    with pytest.raises(UserError, match=r"exactly one metadata file[\s\S]*no metadata file, 0 pictures, and portraits"):
        read_examples(folder)
    write_jsonl(folder / "metadata.jsonl", [GOOD])
    (folder / "metadata.csv").write_text("question,answer\nQ,A\n")
    with pytest.raises(UserError, match=r"metadata\.jsonl, metadata\.csv in"):
        read_examples(folder)


@pytest.mark.parametrize("look", ["iterdir", "is_file"])  # it cannot be listed, or not entered
def test_a_folder_that_may_not_be_read_is_a_message(folder, monkeypatch, look):
    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, look, refuse)
    with pytest.raises(UserError, match=r"portraits cannot be read[\s\S]*Permission denied"):
        read_examples(folder / "portraits")


@pytest.mark.parametrize(
    "column",
    [
        *("img", "Image", "IMAGE", "photo", "Foto", "picture", "pic", "bild", "Bilder", "image_path", "imagePath"),
        *("image_file", "imagefile", "image_url", "ImageURL", "img_src", "picture.file", "image 2", "image_b64"),
        *("\u56fe\u7247", "file", "path", "file_names", "filename", "File Path", "\u200bimage", "whatever"),
    ],
)
@pytest.mark.parametrize("several", [False, True])
def test_a_column_that_looks_like_the_picture_is_an_error(folder, column, several):
    value = ["portraits/a.png"] if several else "portraits/a.png"
    path = write_jsonl(folder / "d.jsonl", [GOOD, {**GOOD, column: value}])
    with pytest.raises(UserError, match=r"d\.jsonl:2: the column .* looks like the picture, and is not read") as raised:
        read_examples(path)
    assert repr(column) in str(raised.value)
    assert "rename the column to 'image'" in str(raised.value)


def test_pictures_are_found_in_columns_of_any_name_by_what_they_hold(folder):
    data = (folder / "portraits/a.png").read_bytes()
    for value in (base64.b64encode(data).decode(), f"data:image/png;base64,{base64.b64encode(data).decode()}"):
        with pytest.raises(UserError, match="the column 'x' looks like the picture"):
            read_examples(write_jsonl(folder / "d.jsonl", [{**GOOD, "x": value}]))
    for value in (data, {"bytes": data, "path": None}):
        parquet.write_table(pyarrow.table({"question": ["Q"], "answer": ["A"], "x": [value]}), folder / "d.parquet")
        with pytest.raises(UserError, match="the column 'x' looks like the picture"):
            read_examples(folder / "d.parquet")


def test_metadata_that_only_sound_like_pictures_stay_metadata(folder):
    plain = {
        "image_id": 7,
        "photo": 3,
        "photo_credit": "Ada",
        "img": None,
        "picture": "",
        "file": "book.pdf",
        "name": "x",
    }
    (example,) = read_examples(write_jsonl(folder / "d.jsonl", [{**GOOD, **plain}]))
    assert example.metadata == plain
    beside = {"image": "portraits/a.png", "original": "IMG_1.jpg", "path": "/somewhere"}
    (example,) = read_examples(write_jsonl(folder / "d.jsonl", [{**GOOD, **beside}]))
    assert example.metadata == {"original": "IMG_1.jpg", "path": "/somewhere"}
    with pytest.raises(UserError, match="the column 'image_2' looks like the picture"):
        read_examples(write_jsonl(folder / "d.jsonl", [{**GOOD, **beside, "image_2": "portraits/b.png"}]))


def test_white_space_around_names_of_columns_does_not_count(folder):
    row = {" question": "Q", "answer\t": "A", "\u00a0image ": "portraits/a.png"}
    (example,) = read_examples(write_jsonl(folder / "d.jsonl", [row]))
    assert example == Example("Q", "A", (folder / "portraits/a.png",), "d.jsonl:1")
    with pytest.raises(UserError, match=r"d\.jsonl:1: a column name occurs twice[\s\S]*image"):
        read_examples(write_jsonl(folder / "d.jsonl", [{**row, "image": "x"}]))


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32", "utf-16-be"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_csv_of_every_spreadsheet(folder, delimiter, encoding, end):
    names = ['"note, with; all\t of | them"', "image", " question ", "answer"]
    rows = [
        names,
        ["x", "portraits/a.png", f'"Wer, {end}genau; ist\tdas?"', "Åsa"],
        ["", "", "", ""],
        ["y", "", "Q", "1,5"],
    ]
    rows[3][3] = '"1,5"'
    text = end.join(delimiter.join(row) for row in rows) + end
    path = folder / "d.csv"
    mark = "\ufeff".encode(encoding) if encoding == "utf-16-be" else b""
    path.write_bytes(mark + text.encode(encoding))
    first, second = read_examples(path)
    assert (first.question, first.answer) == (f"Wer, {end}genau; ist\tdas?", "Åsa")
    assert (first.images, first.identifier) == ((folder / "portraits/a.png",), "d.csv:2")
    # The line in which the row begins, as an editor shows it.
    assert (second.answer, second.identifier) == ("1,5", "d.csv:5")


@pytest.mark.parametrize(("line", "delimiter"), [("sep=;", ";"), ('"sep=,"', ","), ("SEP=^ ", "^"), ("sep=\t", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_first_line_may_name_the_delimiter(folder, line, delimiter, encoding):
    path = folder / "d.csv"
    rows = [["question", "answer"], ["Q; q", "A"]] if delimiter != ";" else [["question", "answer"], ["Q, q", "A"]]
    path.write_text("\r\n".join([line, *(delimiter.join(row) for row in rows)]), encoding, newline="")
    (example,) = read_examples(path)
    assert (example.question, example.answer, example.identifier) == (rows[1][0], "A", "d.csv:3")


def test_the_delimiter_is_the_one_that_gives_question_and_answer(folder):
    path = folder / "d.csv"
    path.write_text("a,b,c,d,e;question;answer\nx;Q, q;A, a\n")
    assert [(one.question, one.answer) for one in read_examples(path)] == [("Q, q", "A, a")]
    path.write_text("\n\nFrage;Antwort\nx;y\n")
    with pytest.raises(UserError, match=r"d\.csv:4: the question is missing[\s\S]*columns Frage, Antwort"):
        read_examples(path)


def test_pictures_inside_csv_and_parquet_are_read(folder):
    data = (folder / "portraits/a.png").read_bytes() + b"\0" * 200_000
    (folder / "d.csv").write_text(f"image,question,answer\n{base64.b64encode(data).decode()},Q,A\n")
    assert read_examples(folder / "d.csv")[0].images == (data,)
    for column in ([data], pyarrow.array([data], pyarrow.large_binary()), [[data]]):
        table = pyarrow.table({"image": column, "question": ["Q"], "answer": ["A"]})
        parquet.write_table(table, folder / "d.parquet")
        assert read_examples(folder / "d.parquet")[0].images == (data,)


BAD_TEXT = pyarrow.Array.from_buffers(pyarrow.string(), 1, pyarrow.array([b"\xff\xfe"]).buffers())


@pytest.mark.parametrize(
    "values",
    [
        BAD_TEXT,
        pyarrow.array([2**62], pyarrow.duration("s")),
        pyarrow.array([2**62], pyarrow.timestamp("us")),
        pyarrow.array([-(2**62)], pyarrow.timestamp("us")),
    ],
)
def test_parquet_values_without_a_counterpart_name_the_column(tmp_path, values):
    parquet.write_table(pyarrow.table({"question": ["Q"], "answer": ["A"], "m": values}), tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"d\.parquet: the column 'm' cannot be read, near row 1"):
        read_examples(tmp_path / "d.parquet")


def test_parquet_keeps_what_python_can_hold(tmp_path):
    day = datetime.date(1815, 12, 10)
    parquet.write_table(pyarrow.table({"question": ["Q"], "answer": ["A"], "born": [day]}), tmp_path / "d.parquet")
    assert read_examples(tmp_path / "d.parquet")[0].metadata == {"born": day}


def test_parquet_with_a_column_twice_is_an_error(tmp_path):
    table = pyarrow.Table.from_arrays([pyarrow.array([text]) for text in "QAB"], names=["question", "answer", "answer"])
    parquet.write_table(table, tmp_path / "d.parquet")
    with pytest.raises(UserError, match=r"a column name occurs twice[\s\S]*answer"):
        read_examples(tmp_path / "d.parquet")


def test_what_would_take_all_memory_is_refused(tmp_path, monkeypatch):
    path = write_jsonl(tmp_path / "d.jsonl", [{**GOOD, "note": "x" * 50}] * 10)
    for name, value in (("MOST_TEXT", 100), ("MOST_ROWS", 3)):
        with monkeypatch.context() as patch:
            patch.setattr(readers, name, value)
            with pytest.raises(UserError, match=r"d\.jsonl: the file holds too much"):
                read_examples(path)
    monkeypatch.setattr(tables, "LONGEST_LINE", 70)
    with pytest.raises(UserError, match=r"d\.jsonl:1: the line is longer than 70 characters"):
        read_examples(path)
    (tmp_path / "d.csv").write_text(f"question,answer\nQ,{'x' * 80}\n")
    with pytest.raises(UserError, match=r"longer than 70 characters|field larger than field limit"):
        read_examples(tmp_path / "d.csv")


def test_pictures_inside_a_file_are_bounded(folder, monkeypatch):
    data = (folder / "portraits/a.png").read_bytes()
    parquet.write_table(
        pyarrow.table({"question": ["Q"] * 3, "answer": ["A"] * 3, "image": [data] * 3}), folder / "d.parquet"
    )
    monkeypatch.setattr(readers, "MOST_PICTURES", 2 * len(data))
    with pytest.raises(UserError, match=r"the file holds too much[\s\S]*3 examples with 6 characters"):
        read_examples(folder / "d.parquet")


def test_rows_of_parquet_are_counted_before_they_are_read(tmp_path, monkeypatch):
    parquet.write_table(pyarrow.table({"question": ["Q"] * 9, "answer": ["A"] * 9}), tmp_path / "d.parquet")
    monkeypatch.setattr(tables, "MOST_ROWS", 8)
    with pytest.raises(UserError, match=r"d\.parquet: there are 9 rows"):
        read_examples(tmp_path / "d.parquet")


def test_large_values_of_parquet_are_unpacked_few_at_a_time(tmp_path):
    table = pyarrow.table({"question": ["q" * 1000] * 999, "answer": ["A"] * 999})
    parquet.write_table(table, tmp_path / "d.parquet")
    metadata = parquet.ParquetFile(tmp_path / "d.parquet").metadata
    held = sum(metadata.row_group(0).column(place).total_uncompressed_size for place in (0, 1))
    assert tables._batch_size(metadata) == min(256, tables.MOST_AT_ONCE // held)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({**GOOD, "answer": "x" * 1_000_001}, r"d\.jsonl:1: the answer is too long[\s\S]*1000001 characters"),
        ({**GOOD, "id": "x" * 201}, r"d\.jsonl:1: the id is too long"),
        ({"x" * 10**6: 1, "answer": "A"}, r"d\.jsonl:1: the question is missing"),
        ({**GOOD, **{str(place): 1 for place in range(1001)}}, r"d\.jsonl:1: there are 1003 columns"),
    ],
)
def test_huge_texts_names_and_rows_are_one_short_message(tmp_path, row, message):
    with pytest.raises(UserError, match=message) as raised:
        read_examples(write_jsonl(tmp_path / "d.jsonl", [row]))
    assert len(str(raised.value)) < 1000


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"question": "Q", "answer": "A", "image": "a.png", "image": "b.png"}', r"has a key twice[\s\S]*image"),
        (r'{"question": "Q", "answer": "A", "id": "x\ud800"}', "half of a character"),
        ('{"question": "Q", "answer": "A", "n": NaN}', "no number"),
    ],
)
def test_lines_are_strict_json(tmp_path, line, message):
    (tmp_path / "d.jsonl").write_text("\n" + line)
    with pytest.raises(UserError, match=r"d\.jsonl:2: the line " + ".*" + message):
        read_examples(tmp_path / "d.jsonl")


def test_paths_that_cannot_be_looked_at_are_one_message(tmp_path):
    (tmp_path / "loop.jsonl").symlink_to("loop.jsonl")
    os.mkfifo(tmp_path / "pipe.jsonl")
    for path, message in (
        (tmp_path / "loop.jsonl", "cannot be looked at"),
        (tmp_path / "pipe.jsonl", "neither a file nor a folder"),
        (tmp_path / ("x" * 300 + ".jsonl"), "cannot be looked at"),
        (tmp_path / "a\0.jsonl", "does not exist"),
        (tmp_path / "a\udcff.jsonl", "not UTF-8"),
        (tmp_path / "loop.jsonl" / "x.jsonl", "cannot be looked at"),
    ):
        with pytest.raises(UserError, match=message):
            read_examples(path)
