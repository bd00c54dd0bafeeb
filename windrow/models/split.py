"""How rows are split into train, validation and test: by time, at random, by the label's classes, by group."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from windrow.clock import duration
from windrow.errors import DeclarationError
from windrow.features.kinds import check_kind


@dataclass(frozen=True)
class _Shares:
    test: float = 0.25
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        _check_shares(self)


@dataclass(frozen=True)
class RandomSplit(_Shares):
    """Test and validation rows drawn at random, the same for one `seed`; for data of a single time.

    Parameters
    ----------
    test, validation
        Shares of the rows; what is left is trained on.

    Examples
    --------
    >>> RandomSplit(0.25).test
    0.25
    """


@dataclass(frozen=True)
class StratifiedSplit(_Shares):
    """Rows drawn at random from each class of the label alone, so that every split has the same share of it.

    Parameters
    ----------
    test, validation
        Shares of the rows of each class; what is left is trained on.

    Examples
    --------
    >>> StratifiedSplit(test=0.2, validation=0.1).validation
    0.1
    """


@dataclass(frozen=True)
class GroupSplit:
    """Whole groups drawn at random: no customer, card or patient is in two splits.

    Parameters
    ----------
    by
        The spine's field that names the group.
    test, validation
        Shares of the groups; what is left is trained on.

    Examples
    --------
    >>> GroupSplit(by="customer_id", test=0.2).by
    'customer_id'
    """

    by: str
    test: float = 0.25
    validation: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_kind(self.by, str, where="by= of GroupSplit()", example='by="customer_id"')
        _check_shares(self)


@dataclass(frozen=True)
class TimeSplit:
    """The last `test` of the spine's time is the test split, the `validation` before it the validation split.

    The rows of a `gap` before each of them belong to no split, so that no label of a row that is trained on
    was still open when a row that is judged on was asked about.

    Parameters
    ----------
    test, gap, validation
        Durations, such as ``"30d"``.
    one_snapshot
        Is used instead where every row has the same time.

    Examples
    --------
    >>> TimeSplit(test="30d", gap="7d").gap
    '7d'
    """

    test: str
    gap: str = "0s"
    validation: str | None = None
    one_snapshot: DrawnSplit | None = None

    def __post_init__(self) -> None:
        for name in ("test", "validation"):
            text = getattr(self, name)
            if text is not None and duration(text, where=f"{name}= of TimeSplit()") <= 0:
                raise DeclarationError(
                    f"TimeSplit({name}={text!r}) holds nothing", next_step='give a time, such as "30d"'
                )
        duration(self.gap, where="gap= of TimeSplit()")
        kinds = (RandomSplit, StratifiedSplit, GroupSplit, type(None))
        check_kind(self.one_snapshot, kinds, where="one_snapshot= of TimeSplit()", example="RandomSplit(0.25)")


DrawnSplit = RandomSplit | StratifiedSplit | GroupSplit
Split = TimeSplit | DrawnSplit


def group_of(split: Split) -> str | None:
    """Return the field that a split (or its rule for one snapshot) groups by, None without one.

    Examples
    --------
    >>> group_of(TimeSplit("1d", one_snapshot=GroupSplit("card_id"))), group_of(RandomSplit())
    ('card_id', None)
    """
    drawn = split.one_snapshot if isinstance(split, TimeSplit) else split
    return drawn.by if isinstance(drawn, GroupSplit) else None


def describe_split(split: Split) -> dict[str, Any]:
    """Return a split's declaration as JSON-like facts.

    Examples
    --------
    >>> describe_split(GroupSplit("card_id"))
    {'kind': 'GroupSplit', 'by': 'card_id', 'test': 0.25, 'validation': 0.0, 'seed': 0}
    """
    told = {"kind": type(split).__name__, **asdict(split)}
    if isinstance(split, TimeSplit) and split.one_snapshot:
        told["one_snapshot"] = describe_split(split.one_snapshot)
    return told


def _check_shares(split: _Shares | GroupSplit) -> None:
    kind = type(split).__name__
    check_kind(split.seed, int, where=f"seed= of {kind}()", example="seed=0")
    for name, share in (("test", split.test), ("validation", split.validation)):
        good = isinstance(share, int | float) and (0 < share < 1 or (name == "validation" and share == 0))
        if not good:
            raise DeclarationError(
                f"{kind}({name}={share!r}) is no share", next_step="give a share between 0 and 1, such as 0.25"
            )
    if split.test + split.validation >= 1:
        raise DeclarationError(
            f"{kind}(test={split.test:g}, validation={split.validation:g}) leaves nothing to train on",
            next_step="give shares that add up to less than 1, such as test=0.2, validation=0.1",
        )
