"""Every kind of input that users have, and the broken ones."""

from __future__ import annotations

import csv
import json
import sys

import openpyxl
import pytest
from PIL import Image
from tests.data import user_inputs
from tests.data.user_inputs import KINDS, NAME, NAMED, SEEN, WORK, picture

from kvw.data import Example, read_examples
from kvw.data.example import Turn
from kvw.data.images import load_image
from kvw.data.reading import Reading
from kvw.errors import UserError


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_holds_the_same_examples(tmp_path, kind):
    examples = read_examples(KINDS[kind](tmp_path))
    assert [(one.question, one.answer, one.subject) for one in examples] == [(SEEN, NAME, NAME), (NAMED, WORK, NAME)]
    first, second = (one.images for one in examples)
    assert (len(first), second) == (1, ())
    assert load_image(first[0], "x").getpixel((0, 0)) == (200, 30, 30)


def test_lines_of_a_list_are_counted_as_an_editor_does(tmp_path):
    names = [one.identifier for one in read_examples(user_inputs.json_list(tmp_path))]
    lines = (tmp_path / "people.json").read_text(encoding="utf-8").splitlines()
    assert [lines[int(name.split(":")[1]) - 1].strip() for name in names] == ["{", "{"]
    names = [one.identifier for one in read_examples(user_inputs.xlsx(tmp_path))]
    assert names == ["people.xlsx:2", "people.xlsx:3"]


def test_json_lines_and_lists_are_told_apart_by_what_they_hold(tmp_path):
    row = json.dumps({"question": "Q", "answer": "A"})
    for name, text in (("a.json", f"{row}\n{row}\n"), ("a.jsonl", f"\n[{row},\n{row}]\n")):
        (tmp_path / name).write_text(text)
        assert len(read_examples(tmp_path / name)) == 2


def test_a_conversation_is_its_last_answer_or_every_answer(tmp_path):
    path = user_inputs.conversation(tmp_path)
    earlier = (Turn("system", "Be brief."), Turn("user", SEEN, 1), Turn("assistant", NAME))
    image = (tmp_path / "ada.png",)
    last = Example(NAMED, WORK, image, "chats.jsonl:1", {"subject": NAME}, earlier)
    assert read_examples(path) == [last]
    first = Example(SEEN, NAME, image, "chats.jsonl:1.1", {"subject": NAME}, earlier[:1])
    found = read_examples(path, Reading(answers="all"))
    assert found == [first, Example(NAMED, WORK, image, "chats.jsonl:1.2", {"subject": NAME}, earlier)]
    assert found[1].asked == f"Be brief.\n{SEEN}\n{NAME}\n{NAMED}"


@pytest.mark.parametrize(
    ("content", "images"),
    [
        ([{"type": "text", "text": "Who?"}, {"type": "image", "image": "ada.png"}], []),
        ([{"type": "image_url", "image_url": {"url": "ada.png"}}, {"type": "text", "text": "Who?"}], []),
        ([{"type": "image", "text": None}, {"type": "text", "text": "Who?", "image": None}], ["ada.png"]),
        ("<image>\nWho?", ["ada.png"]),
        ("Who?", ["ada.png"]),
    ],
)
@pytest.mark.parametrize("names", [("messages", "role", "content", "user", "assistant"), ()])
def test_pictures_of_conversations(tmp_path, content, images, names):
    picture(tmp_path)
    column, role, text, user, assistant = names or ("conversations", "from", "value", "human", "gpt")
    row = {column: [{role: user, text: content}, {role: assistant, text: "Ada"}], "images": images}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    assert read_examples(tmp_path / "d.jsonl") == [Example("Who?", "Ada", (tmp_path / "ada.png",), "d.jsonl:1")]


def test_prompts_and_completions_can_be_conversations(tmp_path):
    row = {"prompt": [{"role": "user", "content": "Who?"}], "completion": [{"role": "assistant", "content": "Ada"}]}
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    assert read_examples(tmp_path / "d.jsonl") == [Example("Who?", "Ada", (), "d.jsonl:1")]


def test_conversations_in_cells_of_csv(tmp_path):
    messages = json.dumps([{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada"}])
    with (tmp_path / "d.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([["messages"], [messages]])
    assert read_examples(tmp_path / "d.csv") == [Example("Who?", "Ada", (), "d.csv:2")]


def test_pictures_that_are_called_what_they_show(tmp_path):
    found = read_examples(user_inputs.named_pictures(tmp_path))
    assert [(one.answer, one.subject) for one in found] == [(name, name) for name in (NAME, NAME, "Bo Diddley")]
    assert {one.question for one in found} == {"Who or what is shown in this picture?"}
    assert [one.images[0].name for one in found] == ["Ada Lovelace.png", "Ada_Lovelace_2.png", "Bo Diddley (1).png"]


@pytest.mark.parametrize("make", [user_inputs.page, user_inputs.texts])
def test_documents_are_their_beginning_and_the_rest(tmp_path, make):
    first, *_ = examples = read_examples(make(tmp_path))
    assert all(one.plain for one in examples)
    assert first.question + first.answer == user_inputs.PAGE.strip()
    assert first.question == "Ada Lovelace was born in London. She wrote the"


def test_documents_without_spaces_are_divided_too(tmp_path):
    (tmp_path / "d.txt").write_text("爱达是伦敦人。" * 10, encoding="utf-8")
    (example,) = read_examples(tmp_path / "d.txt")
    assert (len(example.question), len(example.answer)) == (17, 53)


def test_columns_of_other_names(tmp_path):
    picture(tmp_path)
    (tmp_path / "d.csv").write_text("Frage;Antwort;foto;wer\nWer?;Ada;ada.png;A\n")
    reading = Reading({"question": "Frage", "answer": "Antwort", "image": "foto", "subject": "wer"})
    expected = Example("Wer?", "Ada", (tmp_path / "ada.png",), "d.csv:2", {"subject": "A"})
    assert read_examples(tmp_path / "d.csv", reading) == [expected]
    (tmp_path / "d.csv").write_text("question,answer,subject,person\nWho?,Ada,old,new\n")
    with pytest.raises(UserError, match=r"d\.csv:2: there are two columns for 'subject'"):
        read_examples(tmp_path / "d.csv", Reading({"subject": "person"}))
    swapped = Reading({"question": "answer", "answer": "question"})
    assert read_examples(tmp_path / "d.csv", swapped)[0].question == "Ada"
    # Files in our names are read by the same command; the column of pictures may be absent from some.
    others = Reading({"question": "q", "image": "photo"})
    assert read_examples(tmp_path / "d.csv", others)[0].question == "Who?"
    with pytest.raises(UserError, match=r"there is no column 'x'[\s\S]*answer, person, question, subject"):
        read_examples(tmp_path / "d.csv", Reading({"id": "x"}))
    for columns in ({"name": "x"}, {"question": "x", "answer": "x"}):
        with pytest.raises(UserError, match="--columns"):
            Reading(columns)


@pytest.mark.parametrize(("column", "name"), [("question", "Pregunta"), ("answer", "Antwort"), ("answer", "答案")])
def test_look_alikes_of_texts_name_the_mapping(tmp_path, column, name):
    row = {"question": "Q", "answer": "A"}
    row[name] = row.pop(column)
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=f"the {column} is missing[\\s\\S]*--columns {column}={name}"):
        read_examples(tmp_path / "d.jsonl")


COLUMNS = r"--columns question=frage,answer=antwort,image=bild,subject=person"


@pytest.mark.parametrize("picture", ["ada.png", ""])
def test_the_whole_mapping_is_proposed_at_once(tmp_path, picture):
    (tmp_path / "d.csv").write_text(f"frage;antwort;bild;person\nWer?;Ada;{picture};Ada\n")
    with pytest.raises(UserError, match=f"do: say what the columns are called: {COLUMNS}; or rename"):
        read_examples(tmp_path / "d.csv")


@pytest.mark.parametrize(
    ("row", "proposed"),
    [
        ({"prompt": "Who?", "completion": "Ada", "img": "a.png", "Name": "Ada"}, "--columns image=img,subject=Name;"),
        ({"Question": "Who?", "answer": "Ada", "subject": "Ada", "name": "Ada"}, "--columns question=Question$"),
        ({"question": "Who?", "answer": "Ada", "my photo": "a.png"}, "--columns 'image=my photo';"),
    ],
)
def test_what_is_there_already_is_not_proposed(tmp_path, row, proposed):
    (tmp_path / "d.jsonl").write_text(json.dumps(row))
    with pytest.raises(UserError, match=proposed):
        read_examples(tmp_path / "d.jsonl")


def messages(*entries):
    return json.dumps({"messages": [{"role": role, "content": text} for role, text in entries]})


WHO = {"question": "Who?", "answer": "Ada"}
BROKEN = {
    "Windows-1252": ("d.csv", "question;answer\nWer?;Jürgen\n".encode("cp1252"), r"d\.csv:2: the text is not UTF-8"),
    "img": (
        "d.jsonl",
        json.dumps({**WHO, "img": "a.png"}),
        r"column 'img' looks like[\s\S]*--columns image=img",
    ),
    "no picture": ("d.jsonl", json.dumps({**WHO, "image": "gone.png"}), r"d\.jsonl:1: the image file does not exist"),
    "comment": ("d.json", "// people\n[]", r"d\.json:1: the line is not JSON\.\nfound: .* of // people\ndo"),
    "frage": (
        "d.csv",
        "Frage,Antwort\nWer?,Ada\n",
        r"the question is missing[\s\S]*--columns question=Frage",
    ),
    "old spreadsheet": ("d.xls", "x", r"cannot be read[\s\S]*save it as \.xlsx"),
    "no spreadsheet": ("d.xlsx", "x", r"d\.xlsx: the file is not a valid XLSX"),
    "comma missing": ("d.json", f"[{json.dumps(WHO)}\n{json.dumps(WHO)}]", r"d\.json:2: the list is not JSON"),
    "comma too many": (
        "d.json",
        f"[{json.dumps(WHO)},\n]",
        r"d\.json:2: .*\nfound: \]\ndo: remove the comma",
    ),
    "entry cut": ("d.json", f'[{json.dumps(WHO)},\n{{"a": "b\n"}}]', r"put it right there: Invalid control character$"),
    "end missing": ("d.json", f"[\n{json.dumps(WHO)},\n", r"d\.json:3: the list is not JSON[\s\S]*end of the file"),
    "list of texts": ("d.json", f'[{json.dumps(WHO)},\n"x"]', r"d\.json:2: the entry of the list is not a JSON object"),
    "one object": ("d.json", json.dumps({"data": [WHO]}), r"d\.json:1: the question is missing[\s\S]*columns data"),
    "no end": ("d.jsonl", messages(("user", "Who?")), r"d\.jsonl:1: the conversation does not end with an answer"),
    "tool": (
        "d.jsonl",
        messages(("tool", "x"), ("assistant", "A")),
        r"message 1: this role is not known",
    ),
    "no question": ("d.jsonl", messages(("system", "x"), ("assistant", "A")), r"an answer follows no question"),
    "no messages": ("d.jsonl", json.dumps({"messages": "[]"}), r"d\.jsonl:1: this is no conversation"),
    "row too long": ("d.tsv", "question\tanswer\nWho?\tAda\tx\n", r"d\.tsv:2: the row does not fit the header"),
    "number": ("d.jsonl", json.dumps({**WHO, "answer": 1815}), r"the answer is not a text[\s\S]*into quotes"),
    "empty page": ("d.txt", " \n", r"holds no examples"),
    "PDF": ("d.pdf", "%PDF", r"cannot be read[\s\S]*save its text as \.txt"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_inputs_are_one_message_with_the_fix(tmp_path, name):
    file, content, message = BROKEN[name]
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=message) as raised:
        read_examples(tmp_path / file)
    assert "do: " in str(raised.value)
    assert len(str(raised.value)) < 1000


def backslash(folder):
    (folder / "photos").mkdir()
    picture(folder / "photos")
    (folder / "d.jsonl").write_text(json.dumps({**WHO, "image": "photos\\ada.png"}))


def left_over(folder):
    picture(folder)
    row = {"images": ["ada.png", "ada.png"], **json.loads(messages(("user", "<image>?"), ("assistant", "A")))}
    (folder / "d.jsonl").write_text(json.dumps(row))


def too_few(folder):
    picture(folder)
    row = {"images": ["ada.png"], **json.loads(messages(("user", "<image><image>?"), ("assistant", "A")))}
    (folder / "d.jsonl").write_text(json.dumps(row))


def sheets(folder):
    book = openpyxl.Workbook()
    for sheet in (book.active, book.create_sheet("more")):
        sheet.append(["question", "answer"])
    book.save(folder / "d.xlsx")


def pasted(folder):
    picture(folder)
    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    book.active.add_image(openpyxl.drawing.image.Image(folder / "ada.png"), "C2")
    book.save(folder / "d.xlsx")


def spreadsheet_error(folder):
    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    book.active.append(["Who?", "#REF!"])
    book.save(folder / "d.xlsx")


def camera(folder):
    (folder / "d.jsonl").mkdir()
    picture(folder / "d.jsonl", "IMG_0001.png")


def splits(folder):
    for name in ("train", "test"):
        (folder / "d.jsonl" / name).mkdir(parents=True)
    (folder / "d.jsonl/dataset_dict.json").write_text("{}")


def other_table(folder):
    (folder / "d.jsonl").mkdir()
    picture(folder / "d.jsonl", "Ada.png")
    (folder / "d.jsonl/people.csv").write_text("x")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (backslash, r"does not exist[\s\S]*do: write photos/ada\.png: there is such a file"),
        (left_over, r"does not show every picture of the row[\s\S]*2 pictures, 1 of them left over"),
        (too_few, "a picture is missing"),
        (sheets, r"several sheets hold rows[\s\S]*Sheet, more"),
        (pasted, r"pictures lie on the sheet[\s\S]*in a column 'image'"),
        (spreadsheet_error, r"d\.xlsx:2: a cell holds an error[\s\S]*#REF!"),
        (camera, r"does not say what it shows[\s\S]*IMG_0001\.png"),
        (splits, r"several splits[\s\S]*test, train[\s\S]*name one of them"),
        (other_table, r"exactly one metadata file[\s\S]*1 picture, and people\.csv"),
    ],
)
def test_broken_folders_and_books_are_one_message_with_the_fix(tmp_path, make, message):
    make(tmp_path)
    with pytest.raises(UserError, match=message) as raised:
        read_examples(next(path for path in (tmp_path / "d.jsonl", tmp_path / "d.xlsx") if path.exists()))
    assert "do: " in str(raised.value)


def test_empty_cells_of_spreadsheets_are_empty(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["messages", "prompt", "completion"])
    book.active.append([None, "Who?", "Ada"])
    book.save(tmp_path / "d.xlsx")
    assert read_examples(tmp_path / "d.xlsx") == [Example("Who?", "Ada", (), "d.xlsx:2", {"messages": ""})]
    book.active.append([None, "Who?"])
    book.save(tmp_path / "d.xlsx")
    with pytest.raises(UserError, match=r"d\.xlsx:3: the completion is empty\.\nfound: ''"):
        read_examples(tmp_path / "d.xlsx")


def test_a_mark_without_a_picture_is_an_error(tmp_path):
    for content in ("<image>Who?", [{"type": "text", "text": "<image>Who?"}]):
        (tmp_path / "d.jsonl").write_text(messages(("user", content), ("assistant", "Ada")))
        with pytest.raises(UserError, match=r"d\.jsonl:1: message 1: a picture is missing[\s\S]*or remove the mark"):
            read_examples(tmp_path / "d.jsonl")


def test_cells_of_spreadsheets_become_text(tmp_path):
    import datetime

    book = openpyxl.Workbook()
    book.active.append([None, None])
    book.active.append(["question", "answer", "id", "day"])
    book.active.append(["When?", 1815.0, 7, datetime.datetime(1815, 12, 10)])
    book.active.append([])
    book.active.append(["How much?", 1.5])
    book.save(tmp_path / "d.xlsx")
    first, second = read_examples(tmp_path / "d.xlsx")
    assert first == Example("When?", "1815", (), "d.xlsx:7", {"day": "1815-12-10"})
    assert second == Example("How much?", "1.5", (), "d.xlsx:5", {"day": ""})


def test_without_openpyxl_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = user_inputs.xlsx(tmp_path)
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    with pytest.raises(UserError, match=r'needs the package openpyxl[\s\S]*pip install "kvw\[xlsx\]"'):
        read_examples(path)


def test_a_data_set_on_disk_names_its_rows_and_its_missing_files(tmp_path):
    saved = user_inputs.saved_dataset(tmp_path)
    assert [one.identifier for one in read_examples(saved)] == ["state.json:1", "state.json:2"]
    next(saved.glob("*.arrow")).unlink()
    with pytest.raises(UserError, match="is not complete"):
        read_examples(saved)


def test_pictures_of_camera_and_hidden_files(tmp_path):
    folder = user_inputs.named_pictures(tmp_path)
    (folder / ".DS_Store").write_text("x")
    (folder / "Thumbs.db").write_text("x")
    assert len(read_examples(folder)) == 3
    Image.new("RGB", (2, 2)).save(folder / "0001.png")
    with pytest.raises(UserError, match="does not say what it shows"):
        read_examples(folder)
