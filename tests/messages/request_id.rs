//! The request id in the response header `X-Request-Id`, if `--send-request-id` asks for it.

use crate::{
    each_mode::{MODES, ServedApp},
    support::probe::Probe,
};

const APP: &str = "
    def application(environ, start_response):
        headers = [('Content-Type', 'text/plain')]
        if environ['PATH_INFO'] == '/own':
            headers.append(('x-request-ID', 'of-the-application'))
        if environ['PATH_INFO'] == '/raises':
            raise ValueError('on purpose')
        start_response('200 OK', headers)
        return [environ['wsgate.request_id'].encode()]
    ";

#[test]
fn a_response_has_the_request_id_of_the_log_in_every_mode_if_asked() {
    for mode in MODES {
        let mut served = ServedApp::start(mode, &["--send-request-id", "--debug"], APP);
        let id = "0123456789abcdef-of-the-web-server";
        let response = served.request("GET", "/", &[("UNIQUE_ID", id)], b"");
        assert_eq!(
            (response.header("X-Request-Id"), &*response.text()),
            (Some(id), id),
            "{mode:?}"
        );
        // What a client sends may be the id of another request.
        let forged = [("HTTP_X_REQUEST_ID", "the-id-of-the-client")];
        let response = served.request("GET", "/", &forged, b"");
        assert_eq!(response.header("X-Request-Id"), Some(&*response.text()), "{mode:?}");
        assert_ne!(response.text(), forged[0].1);
        let response = served.request("GET", "/own", &[], b"");
        assert_eq!(response.header("X-Request-Id"), Some("of-the-application"), "{mode:?}");
        let names = response.headers.iter().map(|(name, _)| name.to_lowercase());
        assert_eq!(names.filter(|name| name == "x-request-id").count(), 1, "{mode:?}");
        let page = served.request("GET", "/raises", &[], b"");
        let id = page.header("X-Request-Id").unwrap().to_owned();
        assert!(page.status.starts_with("500") && page.text().contains(&id), "{mode:?}: {page:?}");
        let log = served.stop();
        assert!(log.contains(&format!("request: {id} GET")), "{mode:?}: {log}");
    }
}

#[test]
fn no_response_has_the_header_by_default() {
    for path in ["/", "/raises"] {
        let response = Probe::new(APP).variable("PATH_INFO", path).run();
        assert_eq!(response.header("X-Request-Id"), None, "{response:?}");
    }
}
