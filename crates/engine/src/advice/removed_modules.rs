//! Modules that were once part of Python's standard library, with their successors.

/// A module that Python does not have any more.
#[derive(Clone, Copy, Debug)]
pub(super) struct RemovedModule {
    name: &'static str,
    /// The first minor version of Python 3 without it; 0 for a module of Python 2.
    since: u8,
    /// What to use instead.
    successor: &'static str,
}

const fn removed(name: &'static str, since: u8, successor: &'static str) -> RemovedModule {
    RemovedModule { name, since, successor }
}

const fn renamed(name: &'static str, successor: &'static str) -> RemovedModule {
    RemovedModule { name, since: 0, successor }
}

impl RemovedModule {
    /// The module `name`, if Python 3.`minor` does not have it any more.
    pub(super) fn find(name: &str, minor: u8) -> Option<&'static Self> {
        MODULES.iter().find(|module| module.name == name && module.since <= minor)
    }

    /// What to do about an import of the module.
    pub(super) fn advice(&self) -> String {
        let Self { name, since, successor } = self;
        if *since == 0 {
            format!(
                "`{name}` is a module of Python 2: use {successor} of Python 3, and look for other \
                 code of Python 2; do not install a package of that name"
            )
        } else {
            format!(
                "`{name}` was removed from Python in version 3.{since}: use {successor}; do not \
                 install a package of that name"
            )
        }
    }
}

/// By PEP 594, PEP 632, "What's New in Python" of each version, and the renamings of Python 3.0.
const MODULES: &[RemovedModule] = &[
    removed("aifc", 13, "a package for audio files, such as `soundfile`"),
    removed("asynchat", 12, "`asyncio`"),
    removed("asyncore", 12, "`asyncio`"),
    removed("audioop", 13, "the distribution `audioop-lts`"),
    removed("binhex", 11, "`binascii`"),
    removed(
        "cgi",
        13,
        "`urllib.parse.parse_qs` for queries, `multipart` or your framework for forms, or the \
         distribution `legacy-cgi`, which continues the module",
    ),
    removed("cgitb", 13, "`traceback` and wsgate's --debug, or the distribution `legacy-cgi`"),
    removed("chunk", 13, "`struct`"),
    removed("crypt", 13, "`bcrypt`, `argon2-cffi`, or the distribution `legacycrypt`"),
    removed("distutils", 12, "`setuptools`, which brings its own copy, `shutil` or `packaging`"),
    removed("dummy_threading", 9, "`threading`"),
    removed("formatter", 10, "`textwrap` or `html.parser`"),
    removed("imghdr", 13, "`filetype` or `puremagic`"),
    removed("imp", 12, "`importlib`"),
    removed("lib2to3", 13, "the distribution `fissix`, which continues it"),
    removed("macpath", 8, "`posixpath`"),
    removed("mailcap", 13, "`mimetypes`"),
    removed("nis", 13, "`pwd` and `grp`"),
    removed("nntplib", 13, "the distribution `pynntp`"),
    removed("ossaudiodev", 13, "a package for audio, such as `sounddevice`"),
    removed("parser", 10, "`ast`"),
    removed("pipes", 13, "`subprocess`, and `shlex.quote`"),
    removed("smtpd", 12, "the distribution `aiosmtpd`"),
    removed("sndhdr", 13, "`filetype` or `puremagic`"),
    removed("spwd", 13, "the distribution `python-pam`"),
    removed("sunau", 13, "a package for audio files, such as `soundfile`"),
    removed("symbol", 10, "`ast`"),
    removed("telnetlib", 13, "the distribution `telnetlib3`"),
    removed("uu", 13, "`base64`"),
    removed("xdrlib", 13, "`struct`"),
    renamed("BaseHTTPServer", "`http.server`"),
    renamed("CGIHTTPServer", "`http.server`"),
    renamed("ConfigParser", "`configparser`"),
    renamed("Cookie", "`http.cookies`"),
    renamed("DocXMLRPCServer", "`xmlrpc.server`"),
    renamed("HTMLParser", "`html.parser`"),
    renamed("MimeWriter", "`email`"),
    renamed("Queue", "`queue`"),
    renamed("SimpleHTTPServer", "`http.server`"),
    renamed("SimpleXMLRPCServer", "`xmlrpc.server`"),
    renamed("SocketServer", "`socketserver`"),
    renamed("StringIO", "`io`"),
    renamed("Tkinter", "`tkinter`"),
    renamed("UserDict", "`collections`"),
    renamed("UserList", "`collections`"),
    renamed("UserString", "`collections`"),
    renamed("__builtin__", "`builtins`"),
    renamed("anydbm", "`dbm`"),
    renamed("cPickle", "`pickle`"),
    renamed("cStringIO", "`io`"),
    renamed("commands", "`subprocess`"),
    renamed("cookielib", "`http.cookiejar`"),
    renamed("copy_reg", "`copyreg`"),
    renamed("dbhash", "`dbm`"),
    renamed("dumbdbm", "`dbm.dumb`"),
    renamed("exceptions", "`builtins`"),
    renamed("gdbm", "`dbm.gnu`"),
    renamed("htmlentitydefs", "`html.entities`"),
    renamed("htmllib", "`html.parser`"),
    renamed("httplib", "`http.client`"),
    renamed("md5", "`hashlib`"),
    renamed("mimetools", "`email`"),
    renamed("popen2", "`subprocess`"),
    renamed("rfc822", "`email`"),
    renamed("robotparser", "`urllib.robotparser`"),
    renamed("sets", "`set`"),
    renamed("sgmllib", "`html.parser`"),
    renamed("sha", "`hashlib`"),
    renamed("sre", "`re`"),
    renamed("thread", "`threading`"),
    renamed("urllib2", "`urllib.request`"),
    renamed("urlparse", "`urllib.parse`"),
    renamed("whichdb", "`dbm`"),
    renamed("xmlrpclib", "`xmlrpc.client`"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_removed_only_in_versions_that_lack_it() {
        assert!(RemovedModule::find("cgi", 12).is_none());
        assert!(RemovedModule::find("cgi", 13).is_some());
        assert!(RemovedModule::find("urllib2", 9).is_some());
        assert!(RemovedModule::find("flask", 13).is_none());
    }
}
