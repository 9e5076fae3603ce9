"""An unknown name is answered with the nearest known one."""

from girih.names import unknown


def test_the_nearest_name_is_suggested() -> None:
    text = str(unknown("style", "Twemojy", ["flat", "noto", "twemoji"]))
    assert text == "unknown style 'Twemojy'; did you mean 'twemoji'? Known: flat, noto, twemoji"


def test_nothing_is_suggested_when_nothing_is_near() -> None:
    assert str(unknown("style", "zzz", ["flat"])) == "unknown style 'zzz'. Known: flat"
    assert str(unknown("model", "image", [])) == "unknown model 'image'. Known: none"
