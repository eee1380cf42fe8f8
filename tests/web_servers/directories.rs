//! The files of a script directory that clients can request.

use crate::{
    support::web_servers::{ApacheFcgid, HttpClient, WebServer},
    web_servers::behind_every_cold_web_server,
};

// No script is run, so that it is all one whether one would be warm.
behind_every_cold_web_server! {
    only_wsgi_files_can_be_requested
}

// The other fronts of long-lived workers serve one application at one address, and no directory.
mod apache_fcgid {
    #[test]
    fn only_wsgi_files_can_be_requested() {
        super::only_wsgi_files_can_be_requested(&mut super::ApacheFcgid::start());
    }
}

/// A virtualenv's python under cgi-bin would be a program that runs whatever a client posts.
fn only_wsgi_files_can_be_requested(web_server: &mut dyn WebServer) {
    std::os::unix::fs::symlink(
        crate::support::web_servers::venv(),
        web_server.site().path("cgi-bin/.venv"),
    )
    .unwrap();
    for path in
        [".venv/bin/python", ".venv/bin/python/x.wsgi", "djangosite/settings.py", "djangosite/"]
    {
        let response = HttpClient::post(
            web_server.script(path),
            "print('Content-Type: text/plain'); print(); print('in')",
        )
        .run();
        assert_eq!(
            (response.status, response.text().contains("SECRET_KEY")),
            (403, false),
            "{path}: {response:?}"
        );
    }
}
