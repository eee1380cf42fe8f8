//! Directories of scripts, of which clients can request WSGI files only.

use crate::{
    support::web_servers::{Apache, ApacheFcgid, CgiModule, Lighttpd, WebServer},
    web_servers::exposure::{HIDDEN, gets, put_application, put_hidden, shows_nothing},
};

fn a_directory_of_scripts_shows_nothing(web_server: &dyn WebServer) {
    let scripts = web_server.site().path("cgi-bin");
    put_hidden(&scripts);
    put_application(&scripts);
    gets(web_server, "/cgi-bin/app.wsgi/x", 200, "the application");
    shows_nothing(web_server, "/cgi-bin", &HIDDEN);
}

#[test]
fn under_a_script_alias_only_wsgi_files_can_be_requested() {
    a_directory_of_scripts_shows_nothing(&Apache::with(CgiModule::Cgid));
}

#[test]
fn under_lighttpd_only_wsgi_files_can_be_requested() {
    a_directory_of_scripts_shows_nothing(&Lighttpd::start());
}

/// mod_fcgid has to find a FastCGI server in a script, so that none is run here.
#[test]
fn under_mod_fcgid_only_wsgi_files_can_be_requested() {
    let web_server = ApacheFcgid::start();
    gets(&web_server, "/cgi-bin/hello.wsgi", 200, "Hello from WSGI");
    put_hidden(&web_server.site().path("cgi-bin"));
    shows_nothing(&web_server, "/cgi-bin", &HIDDEN);
}
