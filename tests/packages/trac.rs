//! Trac: a wiki page is edited, and read.

use crate::{
    packages::{in_every_mode, set_up},
    support::web_servers::{HttpClient, WebServer},
};

in_every_mode! {
    a_wiki_page_is_edited_and_read
}

fn a_wiki_page_is_edited_and_read(web_server: &mut dyn WebServer) {
    let environment = web_server.site().path("var/trac");
    let environment = environment.to_str().unwrap();
    // Leaves out the pages of Trac's manual, which take long to write.
    set_up(web_server, "python", &["-c", MAKE_ENVIRONMENT, environment]);

    let jar = tempfile::NamedTempFile::new().unwrap();
    let page = web_server.script("trac.wsgi/wiki/Notes");
    for version in 0..4 {
        let edit = format!("{page}?action=edit");
        let form = HttpClient::get(&edit).cookies(jar.path()).run().expect(200).text();
        let fields = format!(
            "__FORM_TOKEN={}&action=edit&version={version}&\
             text=The+%27%27%27text%27%27%27+of+edit+{version}&save=1",
            field(&form, "__FORM_TOKEN")
        );
        HttpClient::post(&page, &fields).cookies(jar.path()).run().expect(303);
        let text = HttpClient::get(&page).cookies(jar.path()).run().expect(200).text();
        assert!(text.contains(&format!("The <strong>text</strong> of edit {version}")), "{text}");
        // Links begin with the address of the script.
        assert!(text.contains("href=\"/cgi-bin/trac.wsgi/wiki/Notes?action=history\""), "{text}");
    }
    let history = HttpClient::get(format!("{page}?action=history"))
        .cookies(jar.path())
        .run()
        .expect(200)
        .text();
    assert_eq!(
        history.matches("class=\"version\"").count(),
        5,
        "a head and four versions: {history}"
    );
}

/// Makes an environment in which everybody may edit the wiki.
const MAKE_ENVIRONMENT: &str = r#"
import sys
from trac.env import Environment
from trac.perm import PermissionSystem
options = [("trac", "database", "sqlite:db/trac.db")]
environment = Environment(sys.argv[1], create=True, options=options)
PermissionSystem(environment).grant_permission("anonymous", "WIKI_ADMIN")
"#;

/// The value of a hidden field of a form.
fn field<'a>(form: &'a str, name: &str) -> &'a str {
    let value = form
        .split(&format!("name=\"{name}\" value=\""))
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    value.unwrap_or_else(|| panic!("no {name} in the form: {form}"))
}
