//! The page in headless Chromium, which the DevTools protocol drives over two pipes.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    monitor::Monitor,
    pool::GATED,
    support::{fastcgi_client::FastcgiRequest, pool::PoolSetup, web_servers::eventually},
};

/// A browser with one page.
struct Browser {
    child: Child,
    commands: ChildStdin,
    messages: BufReader<ChildStdout>,
    session: String,
    number: u64,
    /// What the page has logged: errors of scripts and of its policy.
    complaints: Vec<Value>,
    _profile: TempDir,
}

impl Browser {
    #[track_caller]
    fn start() -> Self {
        let profile = tempfile::tempdir().unwrap();
        // Chromium reads commands from descriptor 3, and writes to descriptor 4.
        let program = "exec chromium --headless=new --no-sandbox --disable-gpu --no-first-run \
            --disable-dev-shm-usage --remote-debugging-pipe --user-data-dir=\"$0\" about:blank \
            3<&0 4>&1 </dev/null >/dev/null 2>&1";
        let mut child = Command::new("sh")
            .args(["-c", program])
            .arg(profile.path())
            .env("HOME", profile.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut browser = Self {
            commands: child.stdin.take().unwrap(),
            messages: BufReader::new(child.stdout.take().unwrap()),
            child,
            session: String::new(),
            number: 0,
            complaints: Vec::new(),
            _profile: profile,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", target);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page.enable", "Runtime.enable", "Log.enable"] {
            browser.call(domain, json!({}));
        }
        browser
    }

    /// Carries out a command of the protocol.
    #[track_caller]
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut command = json!({"id": self.number, "method": method, "params": params});
        if !self.session.is_empty() {
            command["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{command}\0").as_bytes()).unwrap();
        loop {
            let message = self.next();
            if message["id"] == self.number {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn next(&mut self) -> Value {
        let mut bytes = Vec::new();
        self.messages.read_until(0, &mut bytes).unwrap();
        assert!(!bytes.is_empty(), "chromium has exited: run tests/setup.sh");
        bytes.pop();
        let message: Value = serde_json::from_slice(&bytes).unwrap();
        let method = message["method"].as_str().unwrap_or_default();
        if method.starts_with("Log.")
            || ["Runtime.exceptionThrown", "Page.javascriptDialogOpening"].contains(&method)
        {
            self.complaints.push(message.clone());
        }
        message
    }

    /// Opens a page, and waits until it is loaded.
    #[track_caller]
    fn open(&mut self, url: &str) {
        self.call("Page.navigate", json!({"url": url}));
        while self.next()["method"] != "Page.loadEventFired" {}
    }

    /// The value of an expression in the page.
    #[track_caller]
    fn value(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "returnByValue": true});
        let result = self.call("Runtime.evaluate", params);
        assert!(result["exceptionDetails"].is_null(), "{expression}: {result}");
        result["result"]["value"].clone()
    }

    fn press(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let params = json!({"type": kind, "key": key, "code": key, "text": "\r",
                "windowsVirtualKeyCode": code});
            self.call("Input.dispatchKeyEvent", params);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Means something in HTML.
const HOSTILE: &str = "/slow/<script>document.title='hit'</script><img src=x onerror=alert(1)>";

#[test]
fn the_page_works_in_chromium() {
    let mut pool = PoolSetup::new(GATED).gated().args(&["--workers", "2"]).start();
    let monitor = Monitor::of(&pool);
    let mut connection = pool.connect();
    let request = FastcgiRequest::get("/slow").param("REQUEST_URI", HOSTILE);
    connection.send(&request.bytes());
    pool.await_log("slow");
    let mut browser = Browser::start();
    eventually("the request is shown", || {
        browser.open(&monitor.url("/"));
        browser.value("document.body.textContent.includes('onerror=alert(1)>')") == true
    });
    assert_eq!(browser.value("document.title"), "wsgate: pools");
    assert_eq!(browser.value("document.querySelectorAll('img, main script').length"), 0);
    // Style and script are allowed by their hashes.
    assert_eq!(browser.value("getComputedStyle(document.body).maxWidth"), "1280px");
    assert_eq!(browser.value("document.querySelector('button').hidden"), false);

    // Everything has a name for a screen reader, and the keyboard reaches it.
    let nameless = "[...document.querySelectorAll('svg, section, [role=region]')].filter((it) =>
        !it.getAttribute('aria-label') &&
        !document.getElementById(it.getAttribute('aria-labelledby'))).length";
    assert_eq!(browser.value(nameless), 0);
    browser.value("document.querySelector('summary').focus()");
    browser.press("Enter", 13);
    let is_open = "document.querySelector('details').open";
    eventually("the keyboard opens the workers", || browser.value(is_open) == true);

    // An update keeps what is open and focused.
    browser.value("window.before = document.querySelector('details')");
    browser.value("update()");
    let is_new = "document.querySelector('details') !== window.before";
    eventually("the page has updated itself", || browser.value(is_new) == true);
    assert_eq!(browser.value(is_open), true);
    assert_eq!(browser.value("document.activeElement.id"), "summary-0");

    for scheme in ["light", "dark"] {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        browser.call("Emulation.setEmulatedMedia", features);
        let luminance = |property: &str| {
            format!(
                "getComputedStyle(document.body).{property}.match(/\\d+/g).slice(0, 3)
                    .reduce((sum, it) => sum + Number(it), 0)"
            )
        };
        let text = browser.value(&luminance("color")).as_i64().unwrap();
        let back = browser.value(&luminance("backgroundColor")).as_i64().unwrap();
        assert_eq!(text < back, scheme == "light", "{scheme}: {text} on {back}");
        assert!((text - back).abs() > 450, "{scheme}: {text} on {back}");
    }
    for width in [360, 1280] {
        let metrics =
            json!({"width": width, "height": 700, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", metrics);
        let needed = browser.value("document.documentElement.scrollWidth").as_i64().unwrap();
        assert!(needed <= width, "{needed} of {width} pixels");
    }
    assert_eq!(browser.complaints, [] as [Value; 0]);
    pool.open_gate();
    connection.response();
    pool.stop();
}
