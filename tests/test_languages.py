"""Ten languages end to end: trained on pairs of words, searched, inspected; nothing is taken for equal that is not."""

import csv
import itertools
import json
import unicodedata
from pathlib import Path

import pytest
from conftest import composed
from training import embedded

from two_tower.data.pairs import PairsSource
from two_tower.doctor.facts import inspect_source
from two_tower.search import MODES, Searcher
from two_tower.tokenizer.word import WordTokenizer
from two_tower.train import train

# What a passage begins with, how it ends, what stands between words, and the words: some differ in a mark only.
LANGUAGES = {
    "zh": (
        "我喜欢", "很有用", "",
        "机器 学习 算法 数据 网络 苹果 医院 学校 天气 音乐 电影 历史 经济 政府 城市 汽车 飞机 手机 "
        "电脑 语言 文学 科学 数学 物理 化学 生物 植物 动物 海洋",
    ),
    "ja": (
        "私の", "の店が好きです", "の",
        "機械 学習 かぎ かき パンダ ハンダ 天気 音楽 映画 歴史 経済 政府 都市 くるま 飛行機 携帯 "
        "言語 文学 科学 数学 物理 化学 生物 植物 動物 海 川 山 森",
    ),
    "ko": (
        "나는 ", " 좋아한다", " ",
        "기계 학습 자료 사과 병원 학교 날씨 음악 영화 역사 경제 정부 도시 자동차 비행기 전화 언어 "
        "문학 과학 수학 물리 화학 생물 식물 동물 바다 강 산 숲",
    ),
    "th": (
        "ฉันชอบ", "มาก", "",
        "ข้าว ข่าว ขาว เข้า หมา ม้า มา น้ำ นม ไก่ ไข่ ไข โรงเรียน โรงพยาบาล "
        "อากาศ ดนตรี หนัง ประวัติ "
        "เมือง รถ เครื่องบิน ภาษา วิทยาศาสตร์ ต้นไม้ สัตว์ ทะเล แม่น้ำ ภูเขา ป่า",
    ),
    "hi": (
        "मुझे ", " पसंद है", " ",
        "यहाँ यह पोस्ट पोसट घर पानी किताब स्कूल अस्पताल मौसम संगीत फ़िल्म "
        "इतिहास शहर गाड़ी जहाज़ भाषा "
        "विज्ञान पेड़ जानवर समुद्र नदी पहाड़ जंगल रेगिस्तान आसमान तारा चाँद सूरज",
    ),
    "ar": (
        "أنا أحب ", " كثيرا", " ",
        "كتاب بيت ماء مدرسة مستشفى طقس موسيقى فيلم تاريخ مدينة سيارة طائرة "
        "لغة علم شجرة حيوان بحر نهر "
        "جبل غابة صحراء سماء نجم قمر شمس صيف شتاء صباح مساء",
    ),
    "he": (
        "אני אוהב ", " מאוד", " ",
        "ספר בית מים שלום עולם רופא מורה ילד אמא אבא כלב חתול דג לחם חלב תה "
        "שמש ירח כוכב ים נהר הר יער "
        "מדבר עיר רחוב מכונית מטוס שפה",
    ),
    "ru": (
        "я люблю ", " очень", " ",
        "мой май ёлка елей книга дом вода школа больница погода музыка фильм история город машина "
        "самолёт язык наука дерево животное море река гора лес пустыня небо звезда луна солнце",
    ),
    "vi": (
        "tôi thích ", " lắm", " ",
        "ma má mà mả mã mạ cà cá ca phê bò bơ nhà nước sách trường bệnh "
        "viện trời nhạc phim sử thành phố "
        "xe máy bay tiếng khoa",
    ),
    "el": (
        "μου αρέσει ", " πολύ", " ",
        "σπίτι νερό βιβλίο σχολείο νοσοκομείο καιρός μουσική ταινία ιστορία "
        "πόλη αυτοκίνητο αεροπλάνο "
        "γλώσσα επιστήμη δέντρο ζώο θάλασσα ποτάμι βουνό δάσος έρημος ουρανός αστέρι φεγγάρι ήλιος "
        "καλοκαίρι χειμώνας πρωί βράδυ",
    ),
}  # fmt: skip


def write_pairs(language: str, path: Path) -> list[tuple[str, str]]:
    """400 questions of two words; a passage has them in its midst."""
    start, end, between, words = LANGUAGES[language]
    questions = (between.join(pair) for pair in itertools.combinations(words.split(), 2))
    pairs = [(question, f"{start}{question}{end}") for question in itertools.islice(questions, 400)]
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("question", "answer"), *pairs])
    return pairs


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language(language: str, tmp_path: Path) -> None:
    data, run = tmp_path / f"{language}.csv", tmp_path / "run"
    pairs = write_pairs(language, data)
    small = ("data.batch_size=32", "trainer=cpu", "trainer.max_epochs=1", "tower.dim=64")
    config = composed("data=pairs", "data.path=FOLDER", *small, "run_dir=RUN")
    config["data"]["path"], config["run_dir"] = str(data), str(run)
    results = train(config)
    assert min(results["bm25/mrr@10"], results["val/mrr@10"]) >= 0.95
    found = [finding["id"] for finding in json.loads((run / "doctor.json").read_text())["findings"]]
    assert not {"leakage", "copies"} & {*found}
    facts = inspect_source(PairsSource(data), WordTokenizer())
    assert facts["vocabulary"]["languages"][0] == language
    assert {warning["id"] for warning in facts["warnings"]} <= {"unknown_words"}  # pairs that no other text has
    searcher = Searcher.load(embedded(run))
    for form in ("NFC", "NFD"):
        queries = [unicodedata.normalize(form, question) for question, _ in pairs[::40]]
        for mode in MODES:
            answers = searcher.search(queries, 1, mode)
            assert [answer.hits[0].text for answer in answers] == [passage for _, passage in pairs[::40]], (form, mode)
            assert all(hit.marks for answer in answers for hit in answer.hits)
