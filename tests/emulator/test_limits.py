"""The rate limit and the quota of deployed functions."""

from __future__ import annotations

from kapso_sync.emulator.limiter import FixedWindow
from kapso_sync.emulator.options import Behaviour, EmulatorOptions
from tests.clock import VirtualClock
from tests.emulator.kapso import DELAY, Kapso, opened

REFUSAL = {"error": "Worker limit reached: your plan allows 2 deployed functions"}


async def test_every_response_has_rate_limit_headers(kapso: Kapso) -> None:
    """Successes and errors both count; requests without the key see the count and do not change it."""
    answers = [
        await kapso.http.get("/functions"),
        await kapso.http.get("/functions/unknown"),
        await kapso.http.put("/functions/unknown"),
        await kapso.http.get("/functions", headers={"X-API-Key": "wrong"}),
    ]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == ["999", "998", "997", "997"]
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"1000"}


async def test_request_beyond_the_rate_limit_is_429_and_not_processed() -> None:
    """The documented headers and body; the next window has the full limit again."""
    async with opened(EmulatorOptions(rate_limit=2, window=60)) as kapso:
        await kapso.http.get("/functions")
        await kapso.http.get("/functions")
        answer = await kapso.http.post("/functions", json={"function": {"name": "x", "code": "1"}})
        assert answer.status_code == 429
        assert (answer.headers["X-RateLimit-Remaining"], answer.headers["Retry-After"]) == ("0", "60")
        assert answer.json() == {
            "error": "Rate limit exceeded",
            "message": "You have made more than 2 requests. Try again in 60 seconds.",
        }
        assert not kapso.emulator.world.functions
        await kapso.clock.sleep(60)
        assert (await kapso.http.get("/functions")).headers["X-RateLimit-Remaining"] == "1"
        assert (await kapso.control("GET", "/state")).status_code == 200


async def test_rate_limit_windows_are_fixed() -> None:
    """Windows begin at multiples of their length since the start, not at the first request in them."""
    clock = VirtualClock()
    await clock.sleep(5)
    limiter = FixedWindow(1, 10, clock)
    await clock.sleep(9)
    assert limiter.take().allowed
    assert not limiter.take().allowed
    await clock.sleep(1)
    assert limiter.look().remaining == 1
    assert limiter.take().allowed
    limiter.reset()
    assert limiter.take().allowed


async def test_deployment_beyond_the_quota_is_422() -> None:
    """A deployed function may be deployed again, and a deletion makes room."""
    async with opened(EmulatorOptions(quota=2, deploy_delay=DELAY)) as kapso:
        one, two, three = [await kapso.create(slug) for slug in ("one", "two", "three")]
        assert [(await kapso.deploy(item)).status_code for item in (one, two)] == [202, 202]
        for _ in range(2):
            refused = await kapso.deploy(three)
            assert (refused.status_code, refused.json()) == (422, REFUSAL)
            await kapso.clock.sleep(DELAY)
        assert (await kapso.deploy(one)).status_code == 202
        assert (await kapso.record(three))["status"] == "draft"
        await kapso.http.delete(f"/functions/{one}")
        assert (await kapso.deploy(three)).status_code == 202


async def test_deployment_beyond_the_quota_ends_in_error_when_configured() -> None:
    """The other possible behaviour: accepted, then ``error``."""
    async with opened(EmulatorOptions(quota=0, behaviour=Behaviour(quota_answer="error"), deploy_delay=DELAY)) as kapso:
        function_id = await kapso.deployed()
        assert (await kapso.record(function_id))["status"] == "error"
        assert "Worker limit" in str(kapso.emulator.world.function(function_id).failure)
        await kapso.behave(quota=None)
        await kapso.deploy(function_id)
        await kapso.clock.sleep(DELAY)
        assert (await kapso.record(function_id))["status"] == "deployed"
