"""Who reaches the page: no stranger beyond this machine, and no other site in the owner's browser."""

import base64
import json
from collections.abc import Callable

import pytest

from cled_edge.errors import OptionError, OutputError
from cled_edge.serve.page_address import PageAddress
from cled_edge.serve.server import PageServer
from tests.serve.conftest import TOKEN, Client, scene


def test_every_answer_forbids_frames_foreign_scripts_and_caches(client: Client) -> None:
    status, _, headers = client.ask("/")
    assert status == 200
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "evil.example:80"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"sec_fetch_site": "cross-site", "sec_fetch_mode": "no-cors"},
        {"sec_fetch_site": "same-site", "sec_fetch_mode": "cors"},
    ],
)
@pytest.mark.parametrize("path", ["/status.json", "/stream/fused.mjpg", "/controls"])
def test_another_site_reads_and_changes_nothing(client: Client, box, path: str, headers: dict[str, str]) -> None:
    status, told = client.json(path, {"balance": 1.0} if path == "/controls" else None, **headers)
    assert status == 403
    assert "needed" in told["error"]
    assert box.current.balance == 0.5


def test_a_form_of_another_site_is_no_json(client: Client, box) -> None:
    status, told = client.json("/controls", b"balance=1", content_type="application/x-www-form-urlencoded")
    assert (status, box.current.balance) == (415, 0.5)
    assert "needed content-type application/json" in told["error"]


def test_a_body_is_short_and_says_its_length(client: Client) -> None:
    assert client.ask("/controls", b"x" * 70_000)[0] == 413


def test_a_websocket_of_another_site_is_refused(page: PageServer) -> None:
    from websockets.exceptions import InvalidStatus
    from websockets.sync.client import connect

    with pytest.raises(InvalidStatus) as refused, connect(f"ws{page.url[4:]}live", origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def test_a_name_of_this_machine_with_any_port_is_taken_as_through_a_tunnel(client: Client) -> None:
    for host in ("localhost:9999", "127.0.0.1", "[::1]:80"):
        assert client.ask("/status.json", host=host)[0] == 200, host


def test_with_a_token_nothing_but_health_and_the_login_is_open(serve: Callable[..., PageServer]) -> None:
    page = serve(token=TOKEN)
    page.show(scene())
    client = Client(page.url)
    assert client.ask("/healthz")[0] == 200
    for path in ("/status.json", "/metrics", "/stream/fused.mjpg", "/snapshot.zip", "/about.json", "/page.js"):
        status, content, headers = client.ask(path)
        assert (status, headers["www-authenticate"]) == (401, 'Bearer realm="cled-edge"'), path
        assert TOKEN.encode() not in content
    assert client.ask("/controls", {"balance": 1})[0] == 401
    assert b"Token of this run" in client.ask("/")[1], "a browser is sent to the login"


@pytest.mark.parametrize(
    "value",
    ["", "Bearer", "Bearer wrong", f"Bearer {TOKEN[:-1]}", f"Bearer {TOKEN}x", "Basic ???", "Basic \u00e9", TOKEN],
)
def test_a_wrong_token_opens_nothing(serve: Callable[..., PageServer], value: str) -> None:
    client = Client(serve(token=TOKEN).url)
    assert client.ask("/status.json", authorization=value)[0] == 401


def test_the_token_opens_as_bearer_as_password_and_by_login(serve: Callable[..., PageServer], monkeypatch) -> None:
    from cled_edge.serve import bare_application

    monkeypatch.setattr(bare_application, "WRONG_LOGIN_S", 0.0)
    page = serve(token=TOKEN)
    client = Client(page.url)
    assert client.ask("/status.json", authorization=f"Bearer {TOKEN}")[0] == 200
    basic = base64.b64encode(f"me:{TOKEN}".encode()).decode()
    assert client.ask("/status.json", authorization=f"Basic {basic}")[0] == 200
    assert client.ask("/login", {"token": "wrong"})[0] == 401
    assert client.ask("/login", {"token": 5})[0] == 401
    status, _, headers = client.ask("/login", {"token": TOKEN})
    cookie = headers["set-cookie"]
    assert status == 200
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert TOKEN not in cookie
    assert client.ask("/status.json", cookie=cookie.partition(";")[0])[0] == 200
    assert client.ask("/status.json", cookie=cookie.partition("=")[0] + "=guess")[0] == 401
    assert client.ask("/status.json", cookie=cookie.partition(";")[0], origin="http://evil.example")[0] == 403


def test_a_host_that_others_reach_needs_a_token() -> None:
    with pytest.raises(OptionError, match=r"served at 0.0.0.0, which others can reach; needed a token"):
        PageAddress.parse("0.0.0.0:8080")
    assert PageAddress.parse("0.0.0.0:8080", TOKEN).host == "0.0.0.0"  # noqa: S104 (what the test is about)


def test_addresses_are_read_and_others_refused(tmp_path) -> None:
    assert PageAddress.parse("8080") == PageAddress("127.0.0.1", 8080)
    assert PageAddress.parse("localhost:0") == PageAddress("localhost", 0)
    assert PageAddress.parse("[::1]:80") == PageAddress("::1", 80)
    for text in ("", "host", ":80", "a:b", "1:65536", "host:-1"):
        with pytest.raises(OptionError, match="needed \\[HOST:\\]PORT"):
            PageAddress.parse(text)
    (tmp_path / "token").write_text(f"{TOKEN}\n")
    assert PageAddress.parse("[::]:80", token_file=tmp_path / "token").token == TOKEN
    with pytest.raises(OptionError, match="a token and a file with one are given"):
        PageAddress.parse("80", TOKEN, tmp_path / "token")
    with pytest.raises(OptionError, match="the token of the page has 5 characters; needed 16 or more"):
        PageAddress.parse("80", "short")


def test_a_port_in_use_is_one_line(page: PageServer, box) -> None:
    again = PageServer(page.address, box, about={})
    with pytest.raises(OutputError, match=r"cannot be served at 127.0.0.1:[0-9]+: Address already in use.*free port"):
        again.__enter__()


def test_the_url_and_the_status_hold_no_token(serve: Callable[..., PageServer]) -> None:
    page = serve(token=TOKEN)
    client = Client(page.url, authorization=f"Bearer {TOKEN}")
    assert TOKEN not in page.url
    assert TOKEN not in json.dumps(client.json("/status.json")[1])
