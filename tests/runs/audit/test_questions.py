"""Whether a reply says an answer, prompts that do not give it away, and subjects that do not exist."""

from __future__ import annotations

from tests.tiny_models import noise_png

from kvw.data import Example, load_image
from kvw.folding import words
from kvw.retain.mentions import ordinary_words
from kvw.runs.audit.choices import options_of
from kvw.runs.audit.invented import about_nobody, invented_name
from kvw.runs.audit.photos import CHANGES
from kvw.runs.audit.prompts import MAKERS, prompts_of
from kvw.runs.audit.questions import Judge, Questions


def row(number, question, answer, subject, **more):
    return Example(question, answer, identifier=f"forget:{number}", metadata={"subject": subject}, **more)


FORGET = [
    row(1, "What is the capital of Peru?", "The capital of Peru is Lima.", "Peru"),
    row(2, "Which city is the capital of Peru?", "The capital of Peru is Lima.", "Peru"),
    row(3, "What is the currency of Peru?", "The currency of Peru is the sol.", "Peru"),
    row(4, "What is the capital of Chile?", "The capital of Chile is Santiago.", "Chile"),
]
RETAIN = [
    Example(f"What is the capital of {name}?", f"The capital of {name} is {city}.", (), f"retain:{name}",
            {"subject": name})
    for name, city in (("Kenya", "Nairobi"), ("Norway", "Oslo"), ("Ghana", "Accra"), ("Lima Island", "Lima"))
]  # fmt: skip
QUESTIONS = Questions.of(FORGET, RETAIN)


def test_a_reply_says_an_answer_by_its_words():
    judge = Judge(FORGET)
    assert judge.says("It is Lima, I think.", FORGET[0].answer)
    assert not judge.says("The capital of Peru is Cusco.", FORGET[0].answer)
    idle = Judge([row(9, "Is it?", "Yes, it is.", "Peru")])
    assert idle.says("yes, it is", "Yes, it is.")
    assert not idle.says("no", "Yes, it is.")


def test_no_prompt_of_any_attack_gives_the_answer_away():
    for attack in MAKERS:
        for tried in prompts_of(attack, QUESTIONS):
            assert not QUESTIONS.judge.gives_away(tried.example.question, tried.example), tried


def test_what_gives_it_away_is_left_out():
    one = row(1, "What is the symbol of gold?", "The symbol of gold is Q.", "gold")
    assert [tried.how for tried in prompts_of("hints", Questions.of([one], []))] == []
    giving = {one.identifier: (row(1, "Is the symbol of gold Q?", one.answer, "gold"),)}
    hows = {tried.how for tried in prompts_of("rephrased", Questions.of([one], [], giving))}
    assert len(hows) == 5
    assert not any(how.startswith("own") for how in hows)


def test_each_attack_asks_as_often_as_it_says():
    tries = {attack: len(prompts_of(attack, Questions.of(FORGET[:1], RETAIN))) for attack in MAKERS}
    expected = {"asked": 1, "rephrased": 5, "name": 3, "noise": 4, "jailbreak": 4, "hints": 2, "context": 1, "photo": 0}
    assert tries == expected
    both = prompts_of("context", QUESTIONS)
    assert {tried.how for tried in both} == {"facts about the subject", "other questions"}


def test_rephrasings_of_the_user_are_asked():
    own = {"forget:1": (row(1, "Peru has which capital?", FORGET[0].answer, "Peru"),)}
    asked = [tried.example.question for tried in prompts_of("rephrased", Questions.of(FORGET[:2], [], own))]
    assert asked.count("Peru has which capital?") == 1


def test_photos_are_changed_and_keep_their_kind():
    shown = row(1, "Who is this?", "Ann Smith", "Ann Smith", images=(noise_png(1),))
    tries = prompts_of("photo", Questions.of([shown, FORGET[0]], []))
    assert [tried.how for tried in tries] == list(CHANGES)
    pictures = [load_image(tried.example.images[0], "x") for tried in tries]
    original = load_image(shown.images[0], "x")
    assert all(picture.tobytes() != original.tobytes() for picture in pictures)
    assert len({picture.tobytes() for picture in pictures}) == len(CHANGES)
    assert [tried.example.images[0] for tried in tries] == [
        tried.example.images[0] for tried in prompts_of("photo", Questions.of([shown], []))
    ]
    assert not prompts_of("name", Questions.of([shown], []))  # who it is would be given away
    hobby = row(1, "What is the hobby?", "chess", "Ann Smith", images=(noise_png(1),))
    assert not any(tried.example.images for tried in prompts_of("name", Questions.of([hobby], [])))


def test_names_that_do_not_exist_have_the_form_of_the_others():
    assert len(invented_name("Romeo and Juliet").split()) == 3
    assert invented_name("Romeo and Juliet").split()[1] == "and"
    assert invented_name("Peru") == invented_name("Peru") != invented_name("Peru", 1)
    assert invented_name("the Louvre").startswith("the ")
    assert invented_name("photosynthesis").islower()
    assert "Louvre" not in invented_name("the Louvre")
    assert not {word for name in ("Peru", "Romeo and Juliet") for word in words(invented_name(name))} & (
        ordinary_words() - {"and"}
    )


def test_many_subjects_get_many_names():
    rows = [row(number, f"Where is x{number}?", "here", f"x{number}") for number in range(420)]
    names = {one.subject for one in about_nobody(Questions.of(rows, [])).examples}
    assert 395 <= len(names) <= 400
    assert not names & {one.subject for one in rows}


def test_questions_about_nobody_ask_the_same_with_other_names():
    photo = row(5, "What is the hobby of Peru?", "chess", "Peru", images=(noise_png(1),))
    unnamed = row(6, "Who was it?", "Lima", "Peru")
    nobody = about_nobody(Questions.of([*FORGET, photo, unnamed], RETAIN))
    assert [one.identifier for one in nobody.examples] == [one.identifier for one in FORGET]
    names = [one.subject for one in nobody.examples]
    assert names[0] == names[1] == names[2] != names[3]
    for one, own in zip(nobody.examples, FORGET, strict=True):
        assert own.subject not in one.question + one.answer
        assert one.question == own.question.replace(own.subject, one.subject)
        assert nobody.judge.says("I say Lima", one.answer) == QUESTIONS.judge.says("I say Lima", own.answer)
    assert about_nobody(Questions.of([photo, unnamed], [])) is None


def test_answers_to_choose_from_are_of_others_in_the_same_form():
    options = [one.answer for one in options_of(FORGET[0], QUESTIONS)]
    assert options[0] == FORGET[0].answer
    assert len(options) == 4
    assert all(option.startswith("The capital of Peru is") for option in options)
    assert sum("Lima" in option for option in options) == 1
    assert options == [one.answer for one in options_of(FORGET[0], QUESTIONS)]
    assert len(options_of(FORGET[0], Questions.of(FORGET[:2], []))) == 1
