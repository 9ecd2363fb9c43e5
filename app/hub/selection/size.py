"""How many jobs a selection may have."""

from app.errors import VALIDATION_ERROR, ApiError, FieldProblem
from app.hub.selection.selection import Interest, includes_ended
from app.hub.selection.view import SelectionView
from app.hub.settings import HubSettings


def check_size(view: SelectionView, interest: Interest, settings: HubSettings) -> None:
    """Raise `ApiError` VALIDATION_ERROR if a selection is too large to begin with."""
    matching = len(view.matching)
    if not interest.selects:
        return
    if matching > settings.events_jobs:
        problem = (
            f"The selection has {matching} jobs, and a stream can begin with at most "
            f"{settings.events_jobs}. Narrow it with status, label, user_id or ended_after."
        )
    elif interest.follows and matching > settings.events_followed:
        problem = (
            f"The selection has {matching} jobs, and logs and metrics can be followed for at most "
            f"{settings.events_followed} jobs. Narrow it, or include jobs alone."
        )
    elif _reaches_too_far_back(view, interest):
        problem = (
            f"The selection reaches back beyond the {settings.events_record_jobs} jobs that are "
            "kept for streams. Say with ended_after how far back it is to reach."
        )
    else:
        return
    raise ApiError(VALIDATION_ERROR, details=[FieldProblem("query", problem)])


def check_named(count: int, settings: HubSettings) -> None:
    """Raise `ApiError` VALIDATION_ERROR if more jobs are named than are watched one by one."""
    if count > settings.events_followed:
        problem = (
            f"The query names {count} jobs, and of this coordinator at most "
            f"{settings.events_followed} can be watched in one stream."
        )
        raise ApiError(VALIDATION_ERROR, details=[FieldProblem("job_id", problem)])


def _reaches_too_far_back(view: SelectionView, interest: Interest) -> bool:
    forgotten, selection = view.record.forgotten_until, interest.selection
    if forgotten is None or not includes_ended(selection) or selection.only_named:
        return False
    earliest = selection.earliest_end(view.looked)
    return earliest is None or earliest < forgotten
