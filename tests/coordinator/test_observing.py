"""What looks at a run have its log say."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from app.coordinator.execution.observing import Observer


def test_what_is_noted_again_in_a_run_is_said_once() -> None:
    def look(notes: list[str], *, last: bool) -> Any:
        notes += ["of a look"]
        if last:
            raise ValueError("odd")

    async def event(_: Any) -> None:
        pass

    async def looked() -> None:
        with ThreadPoolExecutor(1) as threads:
            observer = Observer("job-1", parts={"It": look}, executor=threads, event=event)
            observer.note(["one", "one", "two"])
            for _ in range(2):
                await observer.look()
            assert observer.notes == ["one", "two", "of a look"]
            observer.notes.clear()
            await observer.look(last=True)
            observer.note(["two", "three"])
        failed, after = observer.notes
        assert failed.startswith("It could not be read for part of the time")
        assert after == "three"

    asyncio.run(looked())
