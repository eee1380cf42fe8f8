//! The page in headless Chromium.

use serde_json::{Value, json};

use crate::{
    monitor::Monitor,
    pool::GATED,
    support::{
        browser::Browser, fastcgi_client::FastcgiRequest, pool::PoolSetup, web_servers::eventually,
    },
};

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
