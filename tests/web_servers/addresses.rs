//! Addresses under the set-ups of Apache in which the script's path is not what was asked for.

use std::fs;

use crate::support::web_servers::{
    Apache, ApacheProxyFcgi, ApacheSetup, Caddy, CgiModule, Haproxy, HttpClient, Nginx, WebServer,
    WebSite, source,
};

/// Alice's pages, with `script` behind all of them.
fn public_html(module: CgiModule, script: &str) -> Apache {
    let site = WebSite::new();
    site.place(script, "home/alice/public_html/app.wsgi", 0o755);
    fs::copy(source("apache/public_html.htaccess"), site.path("home/alice/public_html/.htaccess"))
        .unwrap();
    fs::create_dir(site.path("home/alice/public_html/static")).unwrap();
    fs::write(site.path("home/alice/public_html/static/page.txt"), "as it is").unwrap();
    Apache::start(module, ApacheSetup::PublicHtml, site)
}

/// Pages with `script` among them, not executable and without a first line.
fn pages(module: CgiModule, script: &str) -> Apache {
    let site = WebSite::new();
    let target = format!("apps/{script}");
    site.place(script, &format!("htdocs/{target}"), 0o644);
    let text = fs::read_to_string(site.path("htdocs").join(&target)).unwrap();
    fs::write(site.path("htdocs").join(&target), text.split_once('\n').unwrap().1).unwrap();
    Apache::start(module, ApacheSetup::Action, site)
}

fn seen(web_server: &dyn WebServer, path: &str) -> serde_json::Value {
    let (path, separator) = (path, if path.contains('?') { '&' } else { '?' });
    HttpClient::get(web_server.url(&format!("{path}{separator}format=json")))
        .run()
        .expect(200)
        .json()
}

fn latin_1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

const HARD: (&str, &[u8]) = (
    "/caf%C3%A9/%E9/a%20b+c/100%25/%2525/%3Fx%26y/%23",
    b"/caf\xc3\xa9/\xe9/a b+c/100%/%25/?x&y/#",
);

#[test]
fn behind_htaccess_the_scripts_name_stays_out_of_addresses() {
    for module in [CgiModule::Cgid, CgiModule::Cgi] {
        let web_server = public_html(module, "environ.wsgi");
        for path_info in ["/", "/a", "/a/b/", "/a//b", "/app.wsgix/y"] {
            let seen = seen(&web_server, &format!("/~alice{path_info}"));
            let address =
                (seen["SCRIPT_NAME"].as_str().unwrap(), seen["PATH_INFO"].as_str().unwrap());
            // How many slashes stand side by side is the server's to say.
            assert_eq!(address, ("/~alice", path_info.replace("//", "/").as_str()), "{module:?}");
        }
    }
}

#[test]
fn behind_htaccess_a_script_that_is_requested_by_name_is_in_the_addresses() {
    let web_server = public_html(CgiModule::Cgid, "environ.wsgi");
    let seen = seen(&web_server, "/~alice/app.wsgi/a/b");
    assert_eq!(
        (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
        (&"/~alice/app.wsgi".into(), &"/a/b".into())
    );
}

#[test]
fn behind_htaccess_a_path_arrives_as_its_bytes() {
    let web_server = public_html(CgiModule::Cgid, "environ.wsgi");
    let seen = seen(&web_server, &format!("/~alice{}?q=%26", HARD.0));
    assert_eq!(seen["PATH_INFO"], latin_1(HARD.1));
    assert_eq!(seen["SCRIPT_NAME"], "/~alice");
    assert_eq!(seen["QUERY_STRING"], "q=%26&format=json");
}

#[test]
fn behind_htaccess_a_password_arrives_and_none_is_invented() {
    for module in [CgiModule::Cgid, CgiModule::Cgi] {
        let web_server = public_html(module, "environ.wsgi");
        let with = HttpClient::get(web_server.url("/~alice/x?format=json"))
            .auth("ada", "lovelace")
            .run()
            .expect(200)
            .json();
        assert_eq!(with["HTTP_AUTHORIZATION"], "Basic YWRhOmxvdmVsYWNl", "{module:?}");
        assert!(seen(&web_server, "/~alice/x")["HTTP_AUTHORIZATION"].is_null());
    }
}

#[test]
fn behind_htaccess_a_posted_body_arrives() {
    let web_server = public_html(CgiModule::Cgid, "upload.wsgi");
    let response = HttpClient::post(web_server.url("/~alice/drop"), "0123456789").run().expect(200);
    assert!(response.text().starts_with("bytes: 10\n"), "{response:?}");
}

#[test]
fn behind_htaccess_static_files_are_sent_as_they_are() {
    let web_server = public_html(CgiModule::Cgid, "environ.wsgi");
    assert_eq!(
        HttpClient::get(web_server.url("/~alice/static/page.txt")).run().expect(200).text(),
        "as it is"
    );
}

#[test]
fn behind_htaccess_flask_links_without_the_scripts_name() {
    let web_server = public_html(CgiModule::Cgid, "flask.wsgi");
    let page = HttpClient::get(web_server.url("/~alice/")).run().expect(200).text();
    assert!(page.contains("href=\"/~alice/where/caf%C3%A9/au%20lait\""), "{page}");
    assert!(!page.contains("app.wsgi"), "{page}");
    let moved = HttpClient::get(web_server.url("/~alice/moved")).run().expect(302);
    assert!(moved.header("location").ends_with("/~alice/"), "{moved:?}");
}

#[test]
fn under_a_handler_the_address_is_the_files_and_the_rest() {
    for module in [CgiModule::Cgid, CgiModule::Cgi] {
        let web_server = pages(module, "environ.wsgi");
        for path_info in ["", "/", "/a/b", HARD.0] {
            let seen = seen(&web_server, &format!("/apps/environ.wsgi{path_info}?q=%26"));
            let expected = if path_info == HARD.0 { latin_1(HARD.1) } else { path_info.to_owned() };
            assert_eq!(seen["SCRIPT_NAME"], "/apps/environ.wsgi", "{module:?}");
            assert_eq!(seen["PATH_INFO"], expected, "{module:?}");
            assert_eq!(seen["QUERY_STRING"], "q=%26&format=json", "{module:?}");
        }
    }
}

#[test]
fn under_a_handler_a_password_and_a_body_arrive() {
    let web_server = pages(CgiModule::Cgid, "environ.wsgi");
    let seen = HttpClient::get(web_server.url("/apps/environ.wsgi?format=json"))
        .auth("ada", "lovelace")
        .run()
        .expect(200)
        .json();
    assert_eq!(seen["HTTP_AUTHORIZATION"], "Basic YWRhOmxvdmVsYWNl");
    let web_server = pages(CgiModule::Cgi, "upload.wsgi");
    let response =
        HttpClient::post(web_server.url("/apps/upload.wsgi"), "0123456789").run().expect(200);
    assert!(response.text().starts_with("bytes: 10\n"), "{response:?}");
}

#[test]
fn under_a_handler_a_missing_file_is_not_found() {
    let web_server = pages(CgiModule::Cgid, "environ.wsgi");
    HttpClient::get(web_server.url("/apps/absent.wsgi")).run().expect(404);
}

#[test]
fn a_handler_cannot_be_requested_directly() {
    let web_server = pages(CgiModule::Cgid, "environ.wsgi");
    let script = web_server.site().path("cgi-bin/hello.wsgi").display().to_string();
    for path in [
        "/wsgate-handler",
        "/wsgate-handler/apps/environ.wsgi",
        &format!("/wsgate-handler{script}"),
        "/wsgate-handler?--version",
    ] {
        let response = HttpClient::get(web_server.url(path)).header("Redirect-Status", "200").run();
        assert_eq!(response.status, 403, "{path}: {response:?}");
    }
}

/// PATH_INFO may hold any byte but NUL, and expressions stop at line ends where no flag tells them
/// to go on.
#[test]
fn a_line_end_in_a_path_is_part_of_it_or_refused() {
    let web_servers: [(Box<dyn WebServer>, bool); 4] = [
        (Box::new(ApacheProxyFcgi::start()), true),
        (Box::new(Nginx::start()), true),
        (Box::new(Caddy::start()), true),
        // HAProxy has no such option, and accepts no such path.
        (Box::new(Haproxy::start()), false),
    ];
    for (web_server, is_taken) in web_servers {
        let response = HttpClient::get(web_server.script("environ.wsgi/a%0Ab?format=json")).run();
        if is_taken {
            let seen = response.expect(200).json();
            assert_eq!(
                (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
                (&"/cgi-bin/environ.wsgi".into(), &"/a\nb".into())
            );
        } else {
            assert!((400..=599).contains(&response.status), "{response:?}");
        }
    }
}

/// An application owns the paths below its mount, and no path that only begins with the same
/// characters.
#[test]
fn an_address_that_only_begins_like_the_applications_is_not_the_applications() {
    let web_servers: [Box<dyn WebServer>; 4] = [
        Box::new(ApacheProxyFcgi::start()),
        Box::new(Nginx::start()),
        Box::new(Caddy::start()),
        Box::new(Haproxy::start()),
    ];
    for web_server in web_servers {
        let address = web_server.script("environ.wsgi");
        HttpClient::get(&address).run().expect(200);
        let response = HttpClient::get(format!("{address}x/y?format=json")).run();
        assert!(!response.text().contains("SCRIPT_NAME"), "{response:?}");
    }
}

/// SCRIPT_NAME is as it was asked for, so that it leads back there (RFC 3875 3.3).
#[test]
fn caddy_takes_an_address_in_another_case_for_the_same() {
    let web_server = Caddy::start();
    HttpClient::get(web_server.script("environ.wsgi")).run().expect(200);
    let seen = seen(&web_server, "/CGI-BIN/environ.wsgi/x");
    assert_eq!(
        (&seen["SCRIPT_NAME"], &seen["PATH_INFO"]),
        (&"/CGI-BIN/environ.wsgi".into(), &"/x".into())
    );
}

#[test]
fn a_pool_at_the_root_has_no_script_name() {
    let web_servers: [Box<dyn WebServer>; 4] = [
        Box::new(ApacheProxyFcgi::at_the_root("environ.wsgi")),
        Box::new(Nginx::at_the_root("environ.wsgi")),
        Box::new(Caddy::at_the_root("environ.wsgi")),
        Box::new(Haproxy::at_the_root("environ.wsgi")),
    ];
    for web_server in web_servers {
        for path_info in ["/", "/a/b/", "/cgi-bin/environ.wsgi", HARD.0] {
            let seen = seen(&*web_server, &format!("{path_info}?q=%26"));
            let expected = if path_info == HARD.0 { latin_1(HARD.1) } else { path_info.to_owned() };
            assert_eq!((&seen["SCRIPT_NAME"], &seen["PATH_INFO"]), (&"".into(), &expected.into()));
            assert_eq!(seen["QUERY_STRING"], "q=%26&format=json");
        }
    }
}
