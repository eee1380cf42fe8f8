//! Files that the web server sends in place of the application.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::Path};

use clap::Args;
use diagnostics::message::{Code, LogMessage};
use serde::{Deserialize, Serialize};
use wire::offload::{Offload, OffloadHeader};

use crate::config::options::contexts::{
    ActsIn,
    Context::{self, Cold, LoneWorker, Pool, Resident, Warm},
};

/// How the web server is asked to send a file.
#[derive(Args, Clone, Debug, Default, Deserialize, Serialize)]
#[command(next_help_heading = "Request")]
pub(crate) struct SendfileOption {
    /// Let the web server send the files of `wsgi.file_wrapper` in a directory, as WAY says
    ///
    /// WAY is `x-accel:/protected/=/srv/files` for nginx or Caddy, with the URL path of a location
    /// and the directory that it serves, or `x-sendfile:/srv/files` for Apache or lighttpd. The web
    /// server must be set up for that, as docs/send-files.md shows. wsgate itself sends each file
    /// whose response would otherwise change for the client.
    #[arg(long, value_name = "WAY", value_parser = way)]
    sendfile: Option<Offload>,
}

impl ActsIn for SendfileOption {
    const CONTEXTS: &'static [Context] = &[Cold, Warm, Resident, Pool, LoneWorker];
}

impl SendfileOption {
    /// This option, or that of a `#!` line.
    pub(super) fn completed_by(self, line: Self) -> Self {
        Self { sendfile: self.sendfile.or(line.sendfile) }
    }

    /// The files that the web server sends.
    ///
    /// # Errors
    /// If their directory does not exist.
    pub(crate) fn offload(&self) -> Result<Option<Offload>, LogMessage> {
        let directory = |offload: &Offload| OsStr::from_bytes(&offload.directory).to_owned();
        if let Some(directory) = self.sendfile.as_ref().map(directory)
            && !Path::new(&directory).is_dir()
        {
            let sentence =
                format!("the directory `{}` for --sendfile cannot be found", directory.display());
            return Err(LogMessage::new(Code::BadSetting, sentence).hint(
                "name a directory that exists, and whose parents the application's user may enter",
            ));
        }
        Ok(self.sendfile.clone())
    }
}

fn way(value: &str) -> Result<Offload, String> {
    const EXAMPLES: &str = "such as `x-accel:/protected/=/srv/files` or `x-sendfile:/srv/files`";
    let (header, directory) = match value.split_once(':') {
        Some(("x-accel", rest)) => match rest.split_once('=') {
            Some((location, directory))
                if location.starts_with('/')
                    && location.ends_with('/')
                    && location.len() > 1
                    && !location.contains(|c: char| c.is_control() || "?#%".contains(c)) =>
            {
                (OffloadHeader::AccelRedirect { location: location.to_owned() }, directory)
            }
            _ => {
                return Err("give x-accel:LOCATION=DIR with a LOCATION that begins and ends with \
                     `/` and has a name, such as `x-accel:/protected/=/srv/files`"
                    .to_owned());
            }
        },
        Some(("x-sendfile", directory)) => (OffloadHeader::Sendfile, directory),
        _ => return Err(format!("give a way to name a file, {EXAMPLES}")),
    };
    if !directory.starts_with('/') {
        return Err(format!("the directory `{directory}` is no absolute path; {EXAMPLES}"));
    }
    Ok(Offload { header, directory: directory.as_bytes().to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_has_a_header_and_an_absolute_directory() {
        let location = |location: &str| OffloadHeader::AccelRedirect { location: location.into() };
        for (value, header, directory) in [
            ("x-accel:/p/=/srv/files", location("/p/"), "/srv/files"),
            ("x-accel:/p/=/a=b", location("/p/"), "/a=b"),
            ("x-sendfile:/srv/a:b", OffloadHeader::Sendfile, "/srv/a:b"),
        ] {
            let directory = directory.as_bytes().to_vec();
            assert_eq!(way(value), Ok(Offload { header, directory }), "{value}");
        }
        for wrong in [
            "",
            "x-accel",
            "x-accel:",
            "x-accel:/p/",
            "x-accel:/p=/srv",
            "x-accel:/=/srv",
            "x-accel:p/=/srv",
            "x-accel:/p/=",
            "x-accel:/p/=srv",
            "x-accel:/p?/=/srv",
            "x-accel:/%2f/=/srv",
            "x-sendfile",
            "x-sendfile:",
            "x-sendfile:srv",
            "x-lighttpd:/srv",
            "X-Accel:/p/=/srv",
        ] {
            assert!(way(wrong).is_err(), "{wrong:?}");
        }
    }
}
