//! Guesses the document root that a script stands in, from the usual names of such directories.

use std::path::{Path, PathBuf};

use crate::system::document_root;

/// Directories of all sites of a machine.
const ALL_SITES: [&str; 3] = ["/var/www", "/srv/www", "/srv/http"];

/// Names of directories whose files the web server runs as programs.
const PROGRAMS: [&str; 2] = ["cgi-bin", "fcgi-bin"];

/// A directory whose files clients can request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct WebRoot {
    /// The directory.
    pub(super) directory: PathBuf,
    /// The script stands in a directory whose files the web server usually runs as programs, so
    /// that clients cannot read them.
    pub(super) runs_programs: bool,
}

impl WebRoot {
    /// The document root of `script`, or the `cgi-bin` directory outside a document root, or the
    /// directory of the script if it has a `.htaccess` file.
    pub(super) fn of(script: &Path) -> Option<Self> {
        let directories: Vec<&Path> = script.parent()?.ancestors().collect();
        let programs = directories
            .iter()
            .find(|directory| PROGRAMS.iter().any(|name| is_named(directory, name)));
        let root = directories.iter().find_map(|directory| root_at(directory));
        let runs_programs = programs.is_some();
        let directory = match root {
            Some(root) => root?,
            None => (*programs.or_else(|| directories.first().filter(has_rules))?).to_owned(),
        };
        Some(Self { directory, runs_programs })
    }
}

/// The document root that begins at `directory`: `Some(None)` if it is a neighbour of the script's
/// directory.
fn root_at(directory: &Path) -> Option<Option<PathBuf>> {
    let holds_sites = |path: &Path| ALL_SITES.iter().any(|sites| path == Path::new(sites));
    if holds_sites(directory) {
        return Some(Some(directory.to_owned()));
    }
    if document_root::is_named_so(directory) {
        return Some(Some(directory.to_owned()));
    }
    let is_site = directory.parent().is_some_and(holds_sites);
    if is_site && PROGRAMS.iter().any(|name| is_named(directory, name)) {
        return None;
    }
    is_site.then(|| (!document_root::is_in(directory)).then(|| directory.to_owned()))
}

fn has_rules(directory: &&&Path) -> bool {
    directory.join(".htaccess").is_file()
}

fn is_named(directory: &Path, name: &str) -> bool {
    directory.file_name().is_some_and(|own| own == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_root_is_guessed_from_usual_names() {
        for (script, root, runs_programs) in [
            ("/home/u/public_html/app.wsgi", Some("/home/u/public_html"), false),
            ("/home/u/public_html/a/b/app.wsgi", Some("/home/u/public_html"), false),
            ("/home/u/public_html/cgi-bin/app.wsgi", Some("/home/u/public_html"), true),
            ("/home/u/www/app.wsgi", Some("/home/u/www"), false),
            ("/var/www/html/app.wsgi", Some("/var/www/html"), false),
            ("/var/www/absent.example/app.wsgi", Some("/var/www/absent.example"), false),
            (
                "/var/www/absent.example/htdocs/app.wsgi",
                Some("/var/www/absent.example/htdocs"),
                false,
            ),
            ("/var/www/app.wsgi", Some("/var/www"), false),
            ("/usr/lib/cgi-bin/app.wsgi", Some("/usr/lib/cgi-bin"), true),
            ("/home/u/site/app.wsgi", None, false),
            ("/srv/site/app.wsgi", None, false),
        ] {
            let expected = root.map(|root| WebRoot { directory: root.into(), runs_programs });
            assert_eq!(WebRoot::of(Path::new(script)), expected, "{script}");
        }
        let own = WebRoot::of(Path::new("/var/www/cgi-bin/app.wsgi")).unwrap();
        assert!(own.runs_programs);
    }
}
