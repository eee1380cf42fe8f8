//! An authorizer and a responder on one socket (FastCGI 1.0, 6.3): this test is the web server
//! between client and application.

use crate::{
    each_mode::{MODES, Mode, ServedApp},
    pool::Pool,
    support::probe::CgiResponse,
};

/// Lets known users in, and gives the responder its name for them; or is the responder.
const BOTH: &str = "
    def application(environ, start_response):
        if environ.get('FCGI_ROLE') != 'AUTHORIZER':
            start_response('200 OK', [('Content-Type', 'text/plain')])
            body = environ['wsgi.input'].read()
            return [environ.get('AUTH_NAME', 'nobody').encode('latin-1'), b'|', body, b'|',
                    environ.get('AUTH_GROUPS', '').encode('latin-1')]
        # No body, whatever the variables say.
        assert environ['wsgi.input'].read() == b''
        user = environ.get('HTTP_X_USER')
        if user is None:
            start_response('401 Unauthorized', [('WWW-Authenticate', 'Basic realm=\"here\"'), \
            ('Content-Type', 'text/plain')])
            return [b'who are you?']
        start_response('200 OK', [('Variable-AUTH_NAME', 'known as ' + user), \
        ('variable-AUTH_GROUPS', 'a, b: c'),
                                  ('Content-Type', 'text/plain'), ('Content-Length', '0')])
        return []
    ";

/// Acts as a web server: sends a request to the authorizer, and on success to the responder with
/// the variables of the authorizer.
fn visit(pool: &Pool, user: Option<&str>, body: &[u8]) -> CgiResponse {
    let length = body.len().to_string();
    let mut params = vec![("REQUEST_METHOD", "POST"), ("CONTENT_LENGTH", length.as_str())];
    params.extend(user.map(|user| ("HTTP_X_USER", user)));
    let asked = pool.output(2, &[&params[..], &[("FCGI_ROLE", "AUTHORIZER")]].concat(), b"");
    assert!(asked.ended);
    let verdict =
        CgiResponse::parse(asked.stdout, String::new(), std::process::ExitStatus::default());
    if verdict.status != "200 OK" {
        return verdict;
    }
    let granted = verdict.headers.iter().filter_map(|(name, value)| {
        let (prefix, name) = name.split_at_checked("Variable-".len())?;
        prefix.eq_ignore_ascii_case("Variable-").then_some((name, value.as_str()))
    });
    params.extend(granted);
    let output = pool.output(1, &[&params[..], &[("FCGI_ROLE", "RESPONDER")]].concat(), body);
    assert!(output.ended);
    CgiResponse::parse(output.stdout, String::new(), std::process::ExitStatus::default())
}

#[test]
fn f42_an_authorizer_and_a_responder_share_a_socket_and_its_variables_reach_the_responder() {
    // CGI has no roles.
    let is_fastcgi =
        |mode: &Mode| matches!(mode, Mode::Preloaded(_) | Mode::NotPreloaded(_) | Mode::Lone);
    for mode in MODES.into_iter().filter(is_fastcgi) {
        let mut served = ServedApp::start(mode, &[], BOTH);
        for round in 0..5 {
            let user = format!("user {round}");
            let let_in = visit(served.pool().unwrap(), Some(&user), b"body");
            assert_eq!(let_in.text(), format!("known as user {round}|body|a, b: c"), "{mode:?}");
            let refused = visit(served.pool().unwrap(), None, b"body");
            assert_eq!(
                (refused.status.as_str(), refused.text().as_str()),
                ("401 Unauthorized", "who are you?"),
                "{mode:?}"
            );
            assert_eq!(
                refused.header("WWW-Authenticate"),
                Some("Basic realm=\"here\""),
                "{mode:?}"
            );
        }
        let log = served.stop();
        assert!(
            !log.contains("wsgate: error") && !log.contains("wsgate: warning"),
            "{mode:?}: {log}"
        );
    }
}
