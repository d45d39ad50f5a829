"""`harness export`: the table of a study as text, and the check of one in a paper."""

from pathlib import Path

from harness.confirm import confirming
from harness.errors import HarnessError
from harness.report.ablation import Form, as_csv, other_methods, sheet
from harness.report.comparison import compared, origin
from harness.report.facts import Facts, gather
from harness.report.fronts import front_csv, front_sheet
from harness.report.papers import PaperError, Verdict, check
from harness.report.sheet import Sheet, latex, markdown
from harness.storage.reader import Stored, read_records, read_studies
from harness.study import Study


def opened(name: str, storage: str) -> Facts:
    """The facts of a stored study; raises StorageError where there is none of that name."""
    (stored,) = read_studies(storage, name)
    return facts_of(stored, storage, confirmed_of(stored.name, storage))


def facts_of(stored: Stored, storage: str, confirmed: Facts | None = None) -> Facts:
    """The facts of a study that was found in a database."""
    study = Study.from_json(stored.attributes["definition"])
    return gather(study, stored.attributes, read_records(storage, stored.study_id), confirmed)


def confirmed_of(name: str, storage: str) -> Facts | None:
    """The facts of the newest study that confirms one; None where there is none."""
    found = confirming(read_studies(storage), name)
    return facts_of(found[-1], storage) if found else None


def table_of(facts: Facts) -> Sheet:
    """The ablation table of a study with arms, the front of any other; raises HarnessError where there is nothing yet."""
    if (found := compared(facts)) is not None:
        return sheet(found.table)
    if not facts.front:
        name = facts.study.name
        raise HarnessError(
            f"study {name!r} has no complete trial yet, so there is no table; `harness resume {name}` goes on"
        )
    return front_sheet(facts, origin(facts))


def others_of(facts: Facts) -> tuple[str, ...]:
    """What other methods say of a study's arms, a line each; raises HarnessError for a study without arms to compare."""
    found = compared(facts)
    if found is None:
        raise HarnessError(f"--sensitivity: study {facts.study.name!r} compares no arms yet")
    return tuple(other_methods(found.table, found.arms.values(found.table.metric)))


def text_of(facts: Facts, form: Form) -> str:
    """The table as text of a form."""
    table = table_of(facts)
    if form != "csv":
        return {"latex": latex, "markdown": markdown}[form](table)
    found = compared(facts)
    return as_csv(found.table) if found else front_csv(facts)


def checked(facts: Facts, file: Path) -> Verdict:
    """What of a paper's source no longer agrees; raises PaperError where it cannot be read or has no table of the study."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise PaperError(f"{file}: cannot be read ({reason}); name a LaTeX or Markdown file") from None
    return check(text, table_of(facts), facts.study.name, str(file))
