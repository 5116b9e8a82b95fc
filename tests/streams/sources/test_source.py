"""What every source has: settings that refuse an unknown key."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from streams import Limits, Source, SourceSettings


class Inner(SourceSettings):
    depth: int = 1


class Outer(Source):
    folder: str
    inner: tuple[Inner, ...] = ()


def test_an_unknown_key_is_refused_with_the_nearest_at_every_depth() -> None:
    with pytest.raises(ValidationError, match=r"unknown key 'foldr'\. Did you mean 'folder'"):
        Outer.model_validate({"foldr": "x"})
    with pytest.raises(ValidationError, match=r"unknown key 'dept'\. Did you mean 'depth'") as caught:
        Outer.model_validate({"folder": "x", "inner": [{}, {"dept": 2}]})
    assert caught.value.errors()[0]["loc"] == ("inner", 1)


def test_a_source_recognises_nothing_and_moves_nothing_unless_it_says_so() -> None:
    source = Outer(folder="x")
    assert not Outer.recognises({"folder": "x"})
    assert source.located() == source
    with pytest.raises(NotImplementedError):
        source.stream("s", Limits())
