"""The status page in a real Chromium, as its users have it: it shows, goes on by itself, and acts."""

import json
import re
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page, expect

from tests.browser.conftest import Later, Open, forwarding
from tests.support.daemon import Daemon, eventually

LONG = "[[delay 20]] [[words 1500]]"
ASK = {"X-Claude-Permission-Mode": "ask"}
NASTY = "<img src=x onerror=alert(1)>\u202egnp"


def row(page: Page, table: str, text: str) -> Any:
    return page.locator(f"#{table} tbody tr").filter(has=page.get_by_role("cell", name=text, exact=True))


def kinds(page: Page) -> list[str]:
    return page.locator("#log li span:first-of-type").all_text_contents()


# It shows ----------------------------------------------------------------------------------------------


def test_it_shows_what_is_there_and_then_what_comes(daemon: Daemon, open_page: Open) -> None:
    assert daemon.ask("[[words 30]]", "before").ok
    with open_page() as page:
        expect(page.get_by_role("status").first).to_have_text("ok")
        expect(row(page, "conversations", "before")).to_be_visible()
        expect(page.locator("#latency figcaption")).to_contain_text("median")
        circles = page.locator("#latency circle").count()
        assert circles >= 1
        with daemon.stream(LONG, "after") as stream:
            stream.until("w3 ")
            expect(row(page, "turns", "after")).to_be_visible()
            expect(page.locator("#latency circle")).to_have_count(circles + 1)
            daemon.control("POST", "/v1/conversations/after/interrupt")
        expect(row(page, "turns", "after")).to_have_count(0)
        expect(row(page, "conversations", "after")).to_be_visible()
        eventually(lambda: "turn.failed" in kinds(page))


def test_who_waits_is_among_the_turns(daemon: Daemon, open_page: Open, later: Later) -> None:
    with open_page() as page, daemon.stream(LONG, "first") as stream:
        stream.until("w3 ")
        second = later(daemon.ask, "[[say hi]]", "first")
        expect(row(page, "turns", "waits for the turn before")).to_be_visible()
        daemon.control("POST", "/v1/conversations/first/interrupt")
        assert second.result().ok
        expect(row(page, "turns", "first")).to_have_count(0)


def test_another_daemon_in_its_place_is_followed_from_its_beginning(daemon: Daemon, open_page: Open) -> None:
    with open_page(expected="502") as page:
        expect(page.locator("#state")).to_have_text("ok")
        assert daemon.ask("[[say hi]]", "old").ok
        eventually(lambda: "turn.finished" in kinds(page))
        daemon.restart()
        expect(page.locator("#state")).to_have_text("ok")
        eventually(lambda: "daemon.serving" in kinds(page) and "turn.finished" not in kinds(page))
        assert daemon.ask("[[say hi]]", "old").ok
        eventually(lambda: "turn.finished" in kinds(page))


def test_a_daemon_that_is_away_is_told_of(daemon: Daemon, open_page: Open) -> None:
    with open_page(expected="502") as page:
        expect(page.locator("#state")).to_have_text("ok")
        assert daemon.stop() == 0
        expect(page.locator("#state")).to_contain_text("not connected: cannot connect to")
        assert page.title() == "away: claude_coded"
        daemon.start()
        expect(page.locator("#state")).to_have_text("ok")


# It acts -----------------------------------------------------------------------------------------------


def test_a_worker_is_evicted_with_the_keyboard_alone(daemon: Daemon, open_page: Open) -> None:
    answer = daemon.ask("[[say hi]]", "leaving")
    assert answer.ok
    with open_page() as page:
        evict = row(page, "workers", "leaving").get_by_role("button", name="Evict")
        expect(evict).to_be_visible()
        for _ in range(60):
            page.keyboard.press("Tab")
            if evict.evaluate("it => it === document.activeElement"):
                break
        page.keyboard.press("Enter")
        expect(row(page, "workers", "leaving")).to_have_count(0)
        expect(page.locator("#said")).to_have_text(re.compile(r"evict w\d+: done"))
        assert page.evaluate("document.activeElement.id") == "workers-title"
    assert daemon.shown("leaving")["state"] == "cold"


def test_a_worker_that_is_busy_is_evicted_at_the_end_of_its_turn(daemon: Daemon, open_page: Open) -> None:
    with open_page() as page, daemon.stream("[[delay 20]] [[words 500]]", "busy-one") as stream:
        stream.until("w3 ")
        evict = row(page, "workers", "busy-one").get_by_role("button", name="Evict")
        evict.click()
        expect(evict).to_have_attribute("aria-disabled", "true")
        expect(page.locator("#said")).to_have_text(re.compile(r"evict w\d+: it goes at the end of its turn"))
        assert "error" not in stream.rest()[-1]
        expect(row(page, "workers", "busy-one")).to_have_count(0)


def test_a_turn_is_interrupted_after_a_question(daemon: Daemon, open_page: Open) -> None:
    with open_page() as page, daemon.stream(LONG, "talking") as stream:
        stream.until("w3 ")
        interrupt = row(page, "turns", "talking").get_by_role("button", name="Interrupt")
        interrupt.click()
        dialog = page.get_by_role("dialog", name="Interrupt the turn of talking?")
        page.keyboard.press("Escape")
        expect(dialog).to_be_hidden()
        expect(interrupt).to_be_focused()
        interrupt.press("Enter")
        dialog.get_by_role("button", name="Interrupt").click()
        assert stream.rest()[-1]["error"]["code"] == "turn_interrupted"
        expect(row(page, "turns", "talking")).to_have_count(0)


def test_a_permission_is_approved_and_another_denied_and_its_text_is_text(
    daemon: Daemon, open_page: Open, later: Later
) -> None:
    command = json.dumps({"command": f"echo '{NASTY}' > made"})
    with open_page() as page:
        turn = later(daemon.ask, f"[[tool Bash {command}]] then [[result]]", "asking", headers=ASK)
        card = page.locator("#requests li")
        expect(card).to_have_count(1)
        expect(page).to_have_title("(1) claude_coded")
        expect(page.locator("#said")).to_have_text("Bash waits for permission, in conversation asking")
        expect(card.locator("> pre")).to_have_text("echo '<img src=x onerror=alert(1)>\\u{202e}gnp' > made")
        assert page.locator("img").count() == 0
        page.wait_for_timeout(500)  # the list has just changed
        page.get_by_role("button", name="Approve Bash for conversation asking").click()
        expect(card).to_have_count(0)
        assert turn.result().ok
        assert (daemon.workspace / "made").read_text() == f"{NASTY}\n"

        command = json.dumps({"command": "touch never"})
        turn = later(daemon.ask, f"[[tool Bash {command}]] then [[result]]", "asking", headers=ASK)
        expect(card).to_have_count(1)
        card.get_by_role("textbox").fill("not on a Friday")
        page.get_by_role("button", name="Deny Bash for conversation asking").press("Enter")
        assert "not on a Friday" in turn.result().text
        assert not (daemon.workspace / "never").exists()


def test_what_was_typed_stays_while_the_page_goes_on(daemon: Daemon, open_page: Open, later: Later) -> None:
    command = json.dumps({"command": "touch typed"})
    with open_page() as page:
        turn = later(daemon.ask, f"[[tool Bash {command}]] then [[result]]", "typing", headers=ASK)
        box = page.locator("#requests").get_by_role("textbox")
        box.fill("half a sen")
        assert daemon.ask("[[say hi]]", "meanwhile").ok
        expect(row(page, "conversations", "meanwhile")).to_be_visible()
        expect(box).to_be_focused()
        expect(box).to_have_value("half a sen")
        box.press_sequentially("tence")
        page.locator("#requests").get_by_role("button", name="Deny").press("Enter")
        assert "half a sentence" in turn.result().text


# It is for one browser, and harmless -------------------------------------------------------------------


def test_the_address_works_once(chromium: Browser, daemon: Daemon) -> None:
    with forwarding(daemon) as address:
        one, other = chromium.new_context(), chromium.new_context()
        page = one.new_page()
        page.goto(address)
        page.wait_for_url("**/*/")
        expect(page.locator("#state")).to_have_text("ok")
        page.reload()
        expect(page.locator("#state")).to_have_text("ok")
        for url in (address, page.url, page.url + "v1/status"):
            response = other.new_page().goto(url)
            assert response is not None
            assert response.status == 403
        assert page.evaluate("document.cookie") == ""
        one.close()
        other.close()


def test_another_page_of_the_browser_gets_and_does_nothing(chromium: Browser, daemon: Daemon) -> None:
    assert daemon.ask("[[say hi]]", "safe").ok
    with forwarding(daemon) as address:
        context = chromium.new_context()
        page = context.new_page()
        page.goto(address)
        page.wait_for_url("**/*/")
        worker = row(page, "workers", "safe").get_by_role("cell").first.text_content()
        other = context.new_page()
        other.goto(f"{daemon.base_url}/health")  # another port of the same host, to which cookies go too
        for method in ("GET", "POST"):
            asked = "(it) => fetch(it.url, {method: it.method, credentials: 'include', mode: 'no-cors'})"
            url = f"{page.url}v1/workers/{worker}" if method == "POST" else f"{page.url}v1/status"
            with pytest.raises(Error, match="Failed to fetch"):
                other.evaluate(asked, {"url": url, "method": method})
        assert daemon.shown("safe")["state"] == "idle"
        context.close()


def test_the_page_runs_no_other_script_and_makes_no_markup_of_text(open_page: Open) -> None:
    with open_page(expected="Trusted") as page:
        expect(page.locator("#state")).to_have_text("ok")
        tries = {
            "document.body.innerHTML = '<b>x</b>'": "TrustedHTML",
            "document.createElement('script').text = '1'": "TrustedScript",
            "document.body.setAttribute('onclick', '1')": "TrustedScript",
        }
        for what, complaint in tries.items():
            with pytest.raises(Error, match=complaint):
                page.evaluate(what)


# It suits who looks at it ------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 1280])
def test_it_fits_every_width_in_both_schemes(
    daemon: Daemon, open_page: Open, width: int, scheme: str
) -> None:
    assert daemon.ask("[[say hi]]", "a-conversation-with-quite-a-long-name-" + "x" * 80).ok
    view = {"width": width, "height": 800}
    with open_page(viewport=view, color_scheme=scheme, reduced_motion="reduce") as page:
        expect(page.locator("#conversations tbody tr").first).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, re.findall(r"\d+", ground)[:3])) < 200) == (scheme == "dark")
        moving = "document.querySelector('button').computedStyleMap().get('transition-duration').toString()"
        assert page.evaluate(moving) == "0s"


def test_its_parts_have_names(daemon: Daemon, open_page: Open) -> None:
    assert daemon.ask("[[say hi]]", "named").ok
    with open_page(viewport={"width": 390, "height": 800}) as page:
        expect(page.get_by_role("cell", name="Conversation named", exact=True).first).to_be_visible()
        for role in ("banner", "main", "contentinfo"):
            expect(page.get_by_role(role)).to_have_count(1)
        for title in ("Permission requests", "Turns", "The last 15 minutes", "Workers", "Events"):
            expect(page.get_by_role("region", name=title, exact=True)).to_have_count(1)
            expect(page.get_by_role("heading", name=title, exact=True)).to_have_count(1)
        # Narrow rows look like cards, and are rows of a table still.
        expect(page.get_by_role("table")).to_have_count(2)
        expect(page.get_by_role("columnheader", name="Memory")).to_have_count(1)
        for button in page.get_by_role("button").all():
            assert re.match(
                r"Evict worker w\d+, at the end of its turn", button.get_attribute("aria-label") or ""
            )
        page.keyboard.press("Tab")
        expect(page.get_by_role("link", name="Skip to what runs")).to_be_focused()
        page.keyboard.press("Enter")
        expect(page.get_by_role("main")).to_be_focused()
