//! The titles of processes that serve CGI requests.

use serde_json::Value;

use crate::{
    pool::{
        children,
        titles::{TELLS, assert_unharmed, title},
    },
    warm::WarmSite,
};

#[test]
fn processes_of_cgi_requests_have_titles_in_each_mode() {
    for mode in ["warm", "resident"] {
        let site = WarmSite::of(mode, "--queue 60 --max-processes 5", TELLS);
        let ask = || -> Value {
            let mut request = site.request();
            let response = site.response(request.env("REQUEST_URI", "/app?secret"), "");
            serde_json::from_str(&response.text()).unwrap_or_else(|_| panic!("{response:?}"))
        };
        let cold = ask();
        assert_eq!(cold["title"], "wsgate: cgi GET /app\0");
        site.await_pools(1);
        let warm = ask();
        let shown = warm["title"].as_str().unwrap();
        assert!(
            shown.starts_with("wsgate: pool app, worker ") && shown.ends_with(" (GET /app)\0"),
            "{shown:?}"
        );
        let supervisor = site.supervisors()[0];
        assert_eq!(title(supervisor), "wsgate: pool app, supervisor");
        assert_eq!(title(children(supervisor)[0]), "wsgate: pool app, template");
        for facts in [cold, warm] {
            let run = site.dir.path("run");
            assert_unharmed(&facts, ("WSGATE_RUNTIME_DIR", run.to_str().unwrap()));
            assert_eq!(facts["os.environ"]["REQUEST_URI"], "/app?secret");
        }
    }
}
