"""A Chromium without a window, driven through its own protocol over two pipes: no driver, no socket, no package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

OFFLINE = "MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
"""Whatever the page asks of anybody but this machine finds nobody."""

DEEP = """
const deep = (selector, root = document) => [...root.querySelectorAll(selector),
  ...[...root.querySelectorAll("*")].filter((e) => e.shadowRoot).flatMap((e) => deep(selector, e.shadowRoot))];
const words = (node = document.body) => {
  if (node.nodeType === 3) return node.textContent + "\\n";
  if (["STYLE", "SCRIPT", "NOSCRIPT"].includes(node.nodeName)) return "";
  return [...(node.shadowRoot?.childNodes ?? []), ...node.childNodes].map(words).join("");
};
"""
"""`deep(selector)` finds elements inside of web components too, and `words()` what is written there."""


class Browser:
    """One page.

    `asked` holds each address that was asked for, `said` each error that reached the console.
    """

    def __init__(self, profile: Path, size: tuple[int, int] = (1200, 900)) -> None:
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        command = [
            str(CHROMIUM), "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--remote-debugging-pipe", "--no-first-run", "--disable-component-update",
            "--disable-background-networking",
            f"--host-resolver-rules={OFFLINE}", f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}",
            "about:blank",
        ]  # fmt: skip
        # the protocol is spoken on descriptors 3 and 4
        shell = f"exec {' '.join(map(_quoted, command))} 3<&{to_browser} 4>&{from_browser}"
        self._process = subprocess.Popen(
            ["bash", "-c", shell], pass_fds=(to_browser, from_browser), stderr=subprocess.DEVNULL
        )
        os.close(to_browser)
        os.close(from_browser)
        self._rest, self._number = b"", 0
        self.asked: list[str] = []
        self.said: list[str] = []
        self._session: str | None = None
        pages = [each for each in self.call("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        attached = self.call("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(timeout=20)
        os.close(self._in)
        os.close(self._out)

    def open(self, address: str) -> None:
        self.call("Page.navigate", url=address)

    def run(self, script: str) -> Any:
        """What `script`, the body of an async function, returns."""
        answer = self.call(
            "Runtime.evaluate",
            expression=f"(async () => {{ {DEEP} {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, script: str, patience: float = 60) -> Any:
        """Run `script` again and again until what it returns is true."""
        until = time.monotonic() + patience
        while not (found := self.run(script)):
            assert time.monotonic() < until, (
                f"in vain: {script}\n{self.said}\n{self.run('return words()')[:3000]}"
            )
            time.sleep(0.2)
        return found

    def click(self, script: str) -> None:
        """Click, as a mouse does, in the middle of the element that `script` returns."""
        x, y = self.run(
            f"const e = await (async () => {{ {script} }})(); e.scrollIntoView({{ block: 'center' }});"
            "const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2];"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def press(self, key: str, code: int) -> None:
        """Press a key, such as ("ArrowLeft", 37), where the focus is."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def picture(self, path: Path) -> Path:
        """Keep what is seen, as a PNG."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))
        return path

    def call(self, method: str, **parameters: Any) -> Any:
        """One command, and its answer; what happens meanwhile is noted."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self._note(answer)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            ready, _, _ = select.select([self._in], [], [], 60)
            assert ready, "the browser does not answer"
            self._rest += os.read(self._in, 1 << 20)
        message, _, self._rest = self._rest.partition(b"\0")
        found: dict[str, Any] = json.loads(message)
        return found

    def _note(self, event: dict[str, Any]) -> None:
        method, about = event.get("method"), event.get("params", {})
        if method == "Network.requestWillBeSent":
            self.asked.append(about["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.said.append(json.dumps(about["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and about["entry"]["level"] == "error":
            self.said.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "assert"):
            self.said.append(
                " ".join(str(each.get("value", each.get("description"))) for each in about["args"])
            )


def _quoted(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
