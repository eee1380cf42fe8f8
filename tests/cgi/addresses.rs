//! Where an application is mounted and what is left of the path: RFC 3875 3.3, 4.1.5, 4.1.13. The
//! variables in the tables are those that Apache and lighttpd set for such requests.

use crate::{
    cgi::{environ, latin_1, seen},
    support::probe::Probe,
};

/// A request as a front describes it, and the mount and path that the application must see.
struct AddressCase {
    uri: &'static str,
    script_name: &'static str,
    path_info: &'static [u8],
    expected: (&'static str, &'static [u8]),
}

const fn row(
    uri: &'static str,
    script_name: &'static str,
    path_info: &'static [u8],
    expected: (&'static str, &'static [u8]),
) -> AddressCase {
    AddressCase { uri, script_name, path_info, expected }
}

impl AddressCase {
    fn probe(&self) -> Probe {
        let probe =
            environ().variable("REQUEST_URI", self.uri).variable("SCRIPT_NAME", self.script_name);
        // Apache and lighttpd leave an empty PATH_INFO out.
        if self.path_info.is_empty() {
            probe.without("PATH_INFO")
        } else {
            probe.variable("PATH_INFO", self.path_info)
        }
    }

    #[track_caller]
    fn holds(&self, probe: &Probe) {
        let seen = seen(&probe.run());
        let (script_name, path_info) = self.expected;
        let found = (seen["SCRIPT_NAME"].as_str().unwrap(), seen["PATH_INFO"].as_str().unwrap());
        assert_eq!(found, (script_name, latin_1(path_info).as_str()), "{}", self.uri);
    }
}

#[test]
fn c14_under_a_script_alias_mount_and_path_are_those_of_the_web_server() {
    const APP: &str = "/cgi-bin/app.wsgi";
    for row in [
        row("/cgi-bin/app.wsgi", APP, b"", (APP, b"")),
        row("/cgi-bin/app.wsgi?q=/x", APP, b"", (APP, b"")),
        row("/cgi-bin/app.wsgi/", APP, b"/", (APP, b"/")),
        row("/cgi-bin/app.wsgi/a/b", APP, b"/a/b", (APP, b"/a/b")),
        row(
            "/cgi-bin/app.wsgi/app.wsgi/app.wsgi",
            APP,
            b"/app.wsgi/app.wsgi",
            (APP, b"/app.wsgi/app.wsgi"),
        ),
        // Written in another way, it is the same script.
        row("/cgi%2Dbin/%61pp.wsgi/a", APP, b"/a", (APP, b"/a")),
        row("/cgi%2Dbin/app.wsgi", APP, b"", (APP, b"")),
        // A whole URL as the target, as proxies write it.
        row("http://example.org/cgi-bin/app.wsgi/a", APP, b"/a", (APP, b"/a")),
        row("http://example.org:80/cgi-bin/app.wsgi", APP, b"", (APP, b"")),
        // Fronts merge slashes and follow dots in everything but the target.
        row("//cgi-bin///app.wsgi", APP, b"", (APP, b"")),
        row("/cgi-bin//app.wsgi/a//b", APP, b"/a/b", (APP, b"/a/b")),
        row("/cgi-bin/app.wsgi//a//b", APP, b"//a//b", (APP, b"//a//b")),
        row("/cgi-bin/./x/../app.wsgi", APP, b"", (APP, b"")),
        row("/cgi-bin/x/%2e%2e/app.wsgi/a/b", APP, b"/a/b", (APP, b"/a/b")),
        row("/cgi-bin/app.wsgi/x/../a", APP, b"/a", (APP, b"/a")),
        // lighttpd with the application at a prefix, and at the root.
        row("/shop/a", "/shop", b"/a", ("/shop", b"/a")),
        row("/shop", "/shop", b"", ("/shop", b"")),
        row("/a/b", "", b"/a/b", ("", b"/a/b")),
        row("/", "", b"/", ("", b"/")),
        row("*", APP, b"", (APP, b"")),
        // An error document: what was asked for is another thing.
        row("", APP, b"/a", (APP, b"/a")),
    ] {
        row.holds(&row.probe());
        row.holds(&row.probe().variable("REDIRECT_STATUS", "200"));
    }
}

#[test]
fn c14_behind_a_web_server_controller_the_scripts_name_is_no_part_of_the_address() {
    const APP: &str = "/~alice/app.wsgi";
    const PLACE: &str = "/~alice";
    for row in [
        // RewriteRule ^(.*)$ app.wsgi/$1
        row("/~alice/", APP, b"/", (PLACE, b"/")),
        row("/~alice/a/b", APP, b"/a/b", (PLACE, b"/a/b")),
        row("/%7Ealice/a%20b/", APP, b"/a b/", (PLACE, b"/a b/")),
        row("/~alice/a//b", APP, b"/a/b", (PLACE, b"/a/b")),
        row("//~alice//a//b", APP, b"/a/b", (PLACE, b"/a/b")),
        row("/~alice/app.wsgix/y", APP, b"/app.wsgix/y", (PLACE, b"/app.wsgix/y")),
        row("http://example.org/~alice/a", APP, b"/a", (PLACE, b"/a")),
        // RewriteRule ^ app.wsgi
        row("/~alice/a/b?q=1", APP, b"", (PLACE, b"/a/b")),
        row("/~alice/app.wsgix", APP, b"", (PLACE, b"/app.wsgix")),
        row("/~alice/caf%C3%A9/%E9", APP, b"", (PLACE, b"/caf\xc3\xa9/\xe9")),
        row("//~alice/a", APP, b"", (PLACE, b"/a")),
        // DirectoryIndex app.wsgi
        row("/~alice/", APP, b"", (PLACE, b"/")),
        // An application at the root of a host.
        row("/a/b", "/app.wsgi", b"/a/b", ("", b"/a/b")),
        row("/a/b", "/app.wsgi", b"", ("", b"/a/b")),
        row("/", "/app.wsgi", b"", ("", b"/")),
        row("/", "/app.wsgi", b"/", ("", b"/")),
        // Asked for by its own name, it has it.
        row("/~alice/app.wsgi/a", APP, b"/a", (APP, b"/a")),
        row("/app.wsgi", "/app.wsgi", b"", ("/app.wsgi", b"")),
    ] {
        row.holds(&row.probe());
        row.holds(&row.probe().variable("REDIRECT_STATUS", "200"));
    }
}

#[test]
fn c14_dots_in_a_target_lead_nowhere_that_the_web_server_has_not_looked_at() {
    // The front checked its rules on `/~alice/public`. A path that is made out of the target by
    // other rules than its own could be `/admin/...` for the application.
    for uri in [
        "/~alice/admin/../public",
        "/~alice/admin/%2e%2e/public",
        "/~alice/admin//../public",
        "/~alice/./admin/..",
    ] {
        for path_info in ["", "/public"] {
            let probe =
                environ().variable("REQUEST_URI", uri).variable("SCRIPT_NAME", "/~alice/app.wsgi");
            let seen = seen(
                &probe.variable("PATH_INFO", path_info).variable("REDIRECT_STATUS", "200").run(),
            );
            let found =
                (seen["SCRIPT_NAME"].as_str().unwrap(), seen["PATH_INFO"].as_str().unwrap());
            assert_eq!(found, ("/~alice/app.wsgi", path_info), "{uri}");
        }
    }
}

#[test]
fn c14_an_error_document_has_its_own_address() {
    // The request was for another address, which is not below this script.
    for status in ["404", "403", "500"] {
        let probe = environ()
            .variable("REQUEST_URI", "/absent/page")
            .variable("SCRIPT_NAME", "/cgi-bin/app.wsgi");
        let seen = seen(&probe.variable("REDIRECT_STATUS", status).run());
        assert_eq!(
            (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
            (&"/cgi-bin/app.wsgi".into(), &"".into())
        );
    }
}

#[test]
fn c14_the_url_that_an_application_rebuilds_is_the_requested_one() {
    let app = "
        from wsgiref.util import request_uri
        def application(environ, start_response):
            start_response('200 OK', [('Content-Type', 'text/plain')])
            return [request_uri(environ).encode('latin-1')]
        ";
    for (uri, script_name, path_info) in [
        ("/cgi-bin/app.wsgi/a%20b?q=%26", "/cgi-bin/app.wsgi", "/a b"),
        ("/~alice/caf%C3%A9?q=%26", "/~alice/app.wsgi", "/caf\u{e9}"),
        ("/~alice/?q=%26", "/~alice/app.wsgi", ""),
        ("/x/y/z?q=%26", "/app.wsgi", ""),
    ] {
        let probe =
            Probe::new(app).variable("REQUEST_URI", uri).variable("SCRIPT_NAME", script_name);
        let response =
            probe.variable("PATH_INFO", path_info).variable("QUERY_STRING", "q=%26").run();
        assert_eq!(response.text(), format!("http://example.org{uri}"));
    }
}

#[test]
fn c14_a_mount_never_ends_with_a_slash() {
    // Some web servers pass `/` as the mount of the root. PEP 3333 wants the slash in the path.
    for (script_name, path_info, expected) in [
        ("/", "", ("", "/")),
        ("/", "/a", ("", "/a")),
        ("", "", ("", "/")),
        ("/shop/", "", ("/shop", "/")),
        ("/shop/", "/a", ("/shop", "/a")),
        ("/", "a", ("", "/a")),
    ] {
        let seen = seen(
            &environ().variable("SCRIPT_NAME", script_name).variable("PATH_INFO", path_info).run(),
        );
        let found = (seen["SCRIPT_NAME"].as_str().unwrap(), seen["PATH_INFO"].as_str().unwrap());
        assert_eq!(found, expected, "{script_name} {path_info}");
    }
}

#[test]
fn c08_a_path_is_decoded_and_keeps_its_case_and_bytes() {
    for path in [&b"/A/b"[..], b"/caf\xc3\xa9", b"/\xe9\xff", b"/a b+c%25", b"/?x&y#z", b"/;v=1"] {
        environ()
            .variable("PATH_INFO", path)
            .both(|response| assert_eq!(seen(response)["PATH_INFO"], latin_1(path)));
    }
}

#[test]
fn c08_a_path_is_empty_or_begins_with_a_slash() {
    environ().without("PATH_INFO").both(|response| {
        // CGIHandler leaves it out, which means the same.
        assert_eq!(seen(response)["PATH_INFO"].as_str().unwrap_or_default(), "");
    });
    // CGIHandler takes this as it comes, and frameworks then match no route.
    assert_eq!(seen(&environ().variable("PATH_INFO", "a/b").run())["PATH_INFO"], "/a/b");
}

#[test]
fn c09_an_encoded_slash_stays_as_the_web_server_passes_it() {
    for (uri, path_info) in [
        // `AllowEncodedSlashes On`: it cannot be distinguished from a slash.
        ("/cgi-bin/app.wsgi/a%2Fb/c", "/a/b/c"),
        // `AllowEncodedSlashes NoDecode`: it is there still.
        ("/cgi-bin/app.wsgi/a%2Fb/c", "/a%2Fb/c"),
        ("/cgi-bin/app.wsgi/a%252Fb", "/a%2Fb"),
    ] {
        environ().variable("REQUEST_URI", uri).variable("PATH_INFO", path_info).both(|response| {
            assert_eq!(seen(response)["PATH_INFO"], path_info);
            assert_eq!(seen(response)["SCRIPT_NAME"], "/cgi-bin/app.wsgi");
        });
    }
}

#[test]
fn c10_a_translated_path_is_no_part_of_the_routing() {
    let probe = environ().variable("PATH_INFO", "/a").variable("PATH_TRANSLATED", "/etc/passwd");
    probe.both(|response| {
        let seen = seen(response);
        assert_eq!(
            (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
            (&"/cgi-bin/app.wsgi".into(), &"/a".into())
        );
        assert_eq!(seen["PATH_TRANSLATED"], "/etc/passwd");
    });
}
