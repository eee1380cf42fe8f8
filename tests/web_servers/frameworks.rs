//! The samples for Flask and Django, as they stand in `cgi-bin/`.

use std::path::Path;

use crate::{
    support::web_servers::{HttpClient, HttpResponse, WebServer, eventually, venv},
    web_servers::behind_every_web_server,
};

behind_every_web_server! {
    flask_links_below_its_script
    flask_redirects_to_its_index
    flask_reads_a_form_and_escapes_it
    flask_counts_visits_in_a_cookie
    flask_routes_a_path_that_is_not_ascii
    flask_asks_for_a_password_and_accepts_it
    flask_failing_is_one_log_message
    django_serves_its_page_and_its_static_files
    django_refuses_a_form_without_its_token
    django_logs_an_admin_in_who_edits_a_note
}

fn flask_links_below_its_script(web_server: &mut dyn WebServer) {
    let page = HttpClient::get(web_server.script("flask.wsgi/")).run().expect(200).text();
    for link in ["/cgi-bin/flask.wsgi/moved", "/cgi-bin/flask.wsgi/where/caf%C3%A9/au%20lait"] {
        assert!(page.contains(&format!("href=\"{link}\"")), "{page}");
    }
}

fn flask_redirects_to_its_index(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("flask.wsgi/moved")).run().expect(302);
    assert!(response.header("location").ends_with("/cgi-bin/flask.wsgi/"), "{response:?}");
    // Routing is strict about the slash: the script's own address is completed.
    let response = HttpClient::get(web_server.script("flask.wsgi")).run();
    assert!([200, 308].contains(&response.status), "{response:?}");
}

fn flask_reads_a_form_and_escapes_it(web_server: &mut dyn WebServer) {
    let page = HttpClient::post(web_server.script("flask.wsgi/greet"), "name=%3Cb%3EZo%C3%AB")
        .run()
        .expect(200)
        .text();
    assert!(page.contains("Hello, &lt;b&gt;Zoë!"), "{page}");
}

fn flask_counts_visits_in_a_cookie(web_server: &mut dyn WebServer) {
    let jar = tempfile::NamedTempFile::new().unwrap();
    for visits in 1..=3 {
        let page = HttpClient::get(web_server.script("flask.wsgi/"))
            .cookies(jar.path())
            .run()
            .expect(200)
            .text();
        assert!(page.contains(&format!("You were here {visits} times")), "{page}");
    }
}

fn flask_routes_a_path_that_is_not_ascii(web_server: &mut dyn WebServer) {
    let seen = HttpClient::get(web_server.script("flask.wsgi/where/caf%C3%A9/au%20lait%3F"))
        .run()
        .expect(200)
        .json();
    assert_eq!(seen["rest"], "café/au lait?");
    assert_eq!(seen["script_root"], "/cgi-bin/flask.wsgi");
    assert_eq!(seen["path"], "/where/café/au lait?");
    assert_eq!(seen["url"], web_server.script("flask.wsgi/where/café/au%20lait%3F"));
}

fn flask_asks_for_a_password_and_accepts_it(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("flask.wsgi/private")).run().expect(401);
    assert_eq!(response.header("www-authenticate"), "Basic realm=\"flask.wsgi\"");
    let response = HttpClient::get(web_server.script("flask.wsgi/private"))
        .auth("ada", "lovelace")
        .run()
        .expect(200);
    assert_eq!(response.text(), "Good day, ada\n");
}

/// Flask answers such a request itself, and writes to `wsgi.errors`.
fn flask_failing_is_one_log_message(web_server: &mut dyn WebServer) {
    let response = HttpClient::get(web_server.script("flask.wsgi/error")).run().expect(500);
    assert!(!response.text().contains("Traceback"), "{response:?}");
    eventually("the traceback is in the log", || {
        web_server.log().contains("RuntimeError: this page fails")
    });
    assert_eq!(web_server.log().matches("Traceback").count(), 1, "{}", web_server.log());
}

/// Makes the database, and an administrator.
fn set_up_django(web_server: &dyn WebServer) {
    let site = web_server.site();
    for args in [
        &["migrate", "--verbosity", "0"][..],
        &["createsuperuser", "--noinput", "--verbosity", "0"],
    ] {
        let mut command = site.as_server(venv().join("bin/python"));
        command.args(["-m", "django"]).args(args);
        command.env("PYTHONPATH", "cgi-bin").env("DJANGO_SETTINGS_MODULE", "djangosite.settings");
        command.env("PYTHONDONTWRITEBYTECODE", "1").env("DJANGO_DATA", site.path("var"));
        command
            .env("DJANGO_SUPERUSER_USERNAME", "ada")
            .env("DJANGO_SUPERUSER_PASSWORD", "lovelace");
        command.env("DJANGO_SUPERUSER_EMAIL", "ada@example.org");
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

fn django_serves_its_page_and_its_static_files(web_server: &mut dyn WebServer) {
    set_up_django(web_server);
    let page = HttpClient::get(web_server.script("django.wsgi/")).run().expect(200).text();
    assert!(page.contains("href=\"/cgi-bin/django.wsgi/admin/\""), "{page}");
    let login =
        HttpClient::get(web_server.script("django.wsgi/admin/login/")).run().expect(200).text();
    let sheet = "/cgi-bin/django.wsgi/static/admin/css/base.css";
    assert!(login.contains(&format!("href=\"{sheet}\"")), "{login}");
    let style = HttpClient::get(web_server.url(sheet)).run().expect(200);
    assert_eq!(style.header("content-type"), "text/css");
    assert!(style.text().contains("DJANGO Admin"), "{style:?}");
}

fn django_refuses_a_form_without_its_token(web_server: &mut dyn WebServer) {
    set_up_django(web_server);
    HttpClient::post(
        web_server.script("django.wsgi/admin/login/"),
        "username=ada&password=lovelace",
    )
    .run()
    .expect(403);
}

fn django_logs_an_admin_in_who_edits_a_note(web_server: &mut dyn WebServer) {
    set_up_django(web_server);
    let jar = tempfile::NamedTempFile::new().unwrap();
    let mut admin = Admin { web_server, jar: jar.path() };

    let to_login = admin.get("").expect(302);
    assert!(
        to_login.header("location").contains("/cgi-bin/django.wsgi/admin/login/?next="),
        "{to_login:?}"
    );
    admin
        .submit("login/", "username=ada&password=lovelace&next=/cgi-bin/django.wsgi/admin/")
        .expect(302);
    assert!(admin.get("").expect(200).text().contains("Notes"));

    admin.submit("notes/note/add/", "title=First&text=caf%C3%A9").expect(302);
    let edit = admin.get("notes/note/1/change/").expect(200).text();
    assert!(edit.contains("café"), "{edit}");
    admin.submit("notes/note/1/change/", "title=Second&text=%3Cem%3E").expect(302);

    let page = HttpClient::get(web_server.script("django.wsgi/")).run().expect(200).text();
    assert!(page.contains("<h2>Second</h2>\n<p>&lt;em&gt;</p>"), "{page}");
}

/// Somebody in a browser at Django's admin.
struct Admin<'a> {
    web_server: &'a dyn WebServer,
    jar: &'a Path,
}

impl Admin<'_> {
    fn url(&self, page: &str) -> String {
        self.web_server.script(&format!("django.wsgi/admin/{page}"))
    }

    fn get(&mut self, page: &str) -> HttpResponse {
        HttpClient::get(self.url(page)).cookies(self.jar).run()
    }

    /// Fills in the form of a page: its token goes along, as a browser sends it.
    fn submit(&mut self, page: &str, fields: &str) -> HttpResponse {
        let form = self.get(page).expect(200).text();
        let token = form
            .split("name=\"csrfmiddlewaretoken\" value=\"")
            .nth(1)
            .and_then(|rest| rest.split('"').next());
        let token = token.unwrap_or_else(|| panic!("no token in the form: {form}"));
        let fields = format!("csrfmiddlewaretoken={token}&{fields}");
        HttpClient::post(self.url(page), &fields).cookies(self.jar).run()
    }
}
