"""The pages in a real browser: clicks, keys, live curves, light and dark."""

import pytest

from executors.listening import listen
from rl.models.tiny import build_tokenizer
from rl.pages.app import pages_app
from rl.run import Run
from tests.rl.browser import browser, chromium
from tests.rl.pages_run import make_run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(chromium() is None, reason="no Chromium is installed; on Debian: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page():
    with browser(str(chromium())) as opened:
        yield opened


@pytest.fixture
def served(tmp_path):
    run = make_run(tmp_path / "one")
    build_tokenizer(["calculator"]).save_pretrained(run.path / "checkpoints" / "step-0")
    make_run(tmp_path / "two", seed=1, finished=False)
    with listen(pages_app(tmp_path)) as listening:
        yield listening.url, tmp_path


def test_from_the_list_of_runs_to_the_candidates_of_a_task_by_clicks_alone(page, served):
    page.open(served[0] + "/")
    page.click('a.row[href="/run?name=one"]')
    page.wait("document.querySelector('h1')?.textContent.startsWith('one')")
    page.click("header nav a[href*='tasks']")
    page.wait("document.querySelectorAll('a.row').length === 2")
    page.click("a.row")
    page.wait("document.querySelectorAll('.candidate').length === 3")
    lefts = page.value("[...document.querySelectorAll('.candidate')].map(e => e.getBoundingClientRect().left)")
    tops = page.value("[...document.querySelectorAll('.candidate')].map(e => e.getBoundingClientRect().top)")
    assert lefts == sorted(lefts) and len(set(lefts)) == 3
    assert len(set(tops)) == 1


def test_tokens_are_shown_and_hidden_by_their_button_and_by_a_key(page, served):
    page.open(served[0] + "/run/task?name=one&task=t1&place=round-1")
    assert page.value("document.querySelector('.tokens').hidden")
    page.click("#show-tokens")
    page.wait("!document.querySelector('.tokens').hidden")
    assert page.value("document.querySelector('#show-tokens').getAttribute('aria-pressed')") == "true"
    page.press("t")
    page.wait("document.querySelector('.tokens').hidden")


def test_keys_lead_from_task_to_task_and_up(page, served):
    page.open(served[0] + "/run/task?name=one&task=t1&place=round-1")
    page.press("j")
    page.wait("location.search.includes('task=t2')")
    page.press("k")
    page.wait("location.search.includes('task=t1')")
    page.press("u")
    page.wait("location.pathname === '/run/tasks'")
    page.press("/")
    page.wait("document.activeElement.id === 'find'")


def test_choosing_a_filter_shows_what_fits_and_stands_in_the_address(page, served):
    page.open(served[0] + "/run/tasks?name=one")
    page.value(
        "(() => {const s = document.querySelector('select[name=only]'); s.value = 'tied';"
        "s.dispatchEvent(new Event('change'))})()"
    )
    page.wait("location.search.includes('only=tied') && document.querySelectorAll('a.row').length === 1")


def test_the_curves_of_a_run_that_goes_on_grow_by_themselves(page, served):
    url, folder = served
    page.open(f"{url}/run?name=two")
    assert page.value("document.querySelector('#curves').textContent.includes('step 0–3')")
    Run(folder / "two").log({"stage": "improve", "step": 9, "loss": 0.01, "constant": 2})
    page.wait("document.querySelector('#curves').textContent.includes('step 0–9')")


def test_a_task_is_copied_as_a_test_case(page, served):
    page.open(served[0] + "/run/task?name=one&task=t1&place=round-1")
    page.value("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    page.click("#copy")
    page.wait("document.querySelector('#copy').textContent === 'Copied'")
    assert page.value("JSON.parse(window.copied).answer") == "42"


def test_every_page_is_readable_in_light_and_in_dark_and_fits_its_window(page, served):
    for dark in (False, True):
        page.dark(dark)
        for path in ("/", "/run?name=one", "/run/tasks?name=one", "/run/task?name=one&task=t1", "/compare?a=one&b=two"):
            page.open(served[0] + path)
            assert page.value("document.documentElement.scrollWidth <= window.innerWidth")
            assert len(page.screenshot()) > 5000
        colour = page.value("getComputedStyle(document.body).color")
        assert colour == ("rgb(255, 255, 255)" if dark else "rgb(0, 0, 0)")
    page.dark(False)


def test_every_control_has_a_name_and_every_page_one_heading(page, served):
    for path in ("/", "/run?name=one", "/run/tasks?name=one", "/run/task?name=one&task=t1"):
        page.open(served[0] + path)
        assert page.value("document.querySelectorAll('h1').length") == 1
        assert page.value("document.documentElement.lang") == "en"
        unnamed = page.value(
            "[...document.querySelectorAll('button, a, input:not([type=hidden]), select')].filter(e =>"
            "!(e.textContent.trim() || e.getAttribute('aria-label') || e.labels?.length)).length"
        )
        assert unnamed == 0
