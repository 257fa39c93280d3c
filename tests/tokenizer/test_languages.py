"""The languages of a collection: found, stated, and what they change."""

import pyarrow as pa
import pytest

from two_tower.tokenizer._languages import Sample, Stemmer, checked

TEXTS = {
    "en": ["How do I reset the password of my account?", "The children are playing in the garden."],
    "de": ["Wie kann ich das Passwort meines Kontos ändern?", "Die Kinder spielen heute im Garten."],
    "fr": ["Comment changer le mot de passe de mon compte ?", "Les enfants jouent dans le jardin."],
    "es": ["¿Cómo puedo cambiar la contraseña de mi cuenta?", "Los niños juegan en el jardín."],
    "vi": ["Làm thế nào để đổi mật khẩu của tôi?", "Trẻ em đang chơi trong vườn."],
    "ru": ["Как сменить пароль моей учётной записи?", "Дети играют в саду."],
    "el": ["Πώς αλλάζω τον κωδικό μου;", "Τα παιδιά παίζουν στον κήπο."],
    "hi": ["मैं अपना पासवर्ड कैसे बदलूँ?", "बच्चे बगीचे में खेल रहे हैं।"],
    "ar": ["كيف أغير كلمة المرور؟", "الأطفال يلعبون في الحديقة."],
    "he": ["איך משנים סיסמה?", "הילדים משחקים בגינה."],
    "zh": ["如何更改我的密码？", "孩子们在花园里玩耍。"],
    "ja": ["パスワードを変更するにはどうすればよいですか。", "子供たちは庭で遊んでいます。"],
    "ko": ["비밀번호를 어떻게 바꾸나요?", "아이들이 정원에서 놀고 있다."],
    "th": ["ฉันจะเปลี่ยนรหัสผ่านได้อย่างไร", "เด็ก ๆ กำลังเล่นอยู่ในสวน"],
}


def found(texts: list[str], size: int = 1000) -> tuple[str, ...]:
    sample = Sample(size)
    for start in range(0, len(texts), 7):
        sample.add(pa.array(texts[start : start + 7]) if start % 2 else texts[start : start + 7])
    return sample.languages()


@pytest.mark.parametrize("language", TEXTS)
def test_a_language_is_found(language: str) -> None:
    assert found(TEXTS[language] * 5) == (language,)


def test_several_languages_the_most_frequent_first() -> None:
    assert found(TEXTS["fr"] * 3 + TEXTS["de"] * 20) == ("de", "fr")
    few_of_another_script = TEXTS["en"] * 60 + TEXTS["zh"] * 4
    assert found(few_of_another_script) == ("en", "zh")
    assert found(TEXTS["en"] * 60 + TEXTS["fr"]) == ("en",)  # a quotation makes no language


def test_made_up_words_are_read_as_english_and_nothing_as_nothing() -> None:
    assert found(["kubeba lebeba lubeba", "word17 word4"] * 40) == ("en",)
    assert found(["12", "…", ""] * 3) == found([]) == ()


def test_the_sample_is_spread_evenly_over_all_batches() -> None:
    assert set(found(TEXTS["en"] * 500 + TEXTS["ru"] * 500, size=50)) == {"en", "ru"}


def test_what_the_setting_names() -> None:
    assert checked("auto") is None
    assert checked("none") == checked([]) == checked(None) == ()
    assert checked("de") == ("de",)
    assert checked(["de", "fr"]) == ("de", "fr")
    with pytest.raises(ValueError, match="language=german must be auto, none, or one or several of en, de"):
        checked("german")


def test_each_script_has_the_stemmer_of_its_first_language() -> None:
    stem = Stemmer(["en", "ru", "fr", "zh"])
    assert [*map(stem, ["running", "книги", "手机", "2024", "chevaux"])] == ["run", "книг", "手机", "2024", "chevaux"]
    assert Stemmer(["fr", "en"])("chevaux") == "cheval"
    assert Stemmer([])("running") == "running"
