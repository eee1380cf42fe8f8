//! The request that the arguments describe, and the one that follows a redirect.

use std::{
    ffi::{OsStr, OsString},
    io::Seek as _,
    os::{fd::OwnedFd, unix::ffi::OsStringExt as _},
    path::Path,
};

use anyhow::{Context as _, Result, bail, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use wire::synthetic_request::SyntheticRequest;

use crate::{
    call::{
        args::CallArgs,
        body::Body,
        body_files::{NoFile, UnusableFile},
        compose::{Header, Variables, is_token},
        cookies::CookieJar,
        multipart::BadField,
        output::ResponseHead,
        url::Url,
    },
    config::settings::INTERACTIVE_TIMEOUT_SECS,
    request::Request,
};

/// A request that can be sent.
pub(super) struct ComposedRequest {
    pub(super) request: Request,
    pub(super) body: OwnedFd,
}

/// The next request of a command.
pub(super) struct RequestPlan<'a> {
    args: &'a CallArgs,
    script: Option<&'a OsStr>,
    headers: Vec<Header>,
    pub(super) method: String,
    pub(super) url: Url,
    body: Body,
    /// `NAME=VALUE` of the command line.
    cookies: String,
    /// The cookies of files and responses, if responses may set some.
    jar: Option<CookieJar>,
    referer: Option<String>,
}

impl<'a> RequestPlan<'a> {
    /// The request for `target` that `args` describe; `script` is the file of the application, if
    /// it is in a file.
    pub(super) fn new(args: &'a CallArgs, target: &str, script: Option<&'a OsStr>) -> Result<Self> {
        let call = &args.call;
        let script_name = args.request.script_name.as_deref().unwrap_or_default();
        let mut url = Url::parse(target, &call.host, call.https, script_name)?;
        let timeout_secs = args.request.timeout.unwrap_or(INTERACTIVE_TIMEOUT_SECS);
        let headers = Header::all(&call.headers)?;
        let mut body = Body::new(&args.body, timeout_secs).map_err(|error| {
            let is_form = error.is::<BadField>() || error.is::<NoFile>();
            let unusable = UnusableFile::of_body();
            if is_form { error } else { error.context(unusable) }
        })?;
        ensure!(
            !call.head || call.get || args.body.is_empty(),
            "a HEAD request has no body: add -G, or leave out -I"
        );
        if call.get && !args.body.is_empty() {
            ensure!(args.body.form.is_empty(), "-F has no effect with -G: use -d");
            let joint = if url.query.is_empty() { "" } else { "&" };
            let data = std::mem::replace(&mut body, Body::none()?).into_text()?;
            url.query = format!("{}{joint}{data}", url.query);
        }
        let method = match &call.method {
            Some(method) => method,
            None if call.head => "HEAD",
            None if call.get || args.body.is_empty() => "GET",
            None => "POST",
        };
        if !is_token(method) {
            bail!("`{method}` is not a method: write GET, POST or another name");
        }
        let referer = call.referer.as_ref().map(|url| url.trim_end_matches(";auto").to_owned());
        let mut plan = Self {
            args,
            script,
            headers,
            method: method.to_owned(),
            url,
            body,
            cookies: String::new(),
            jar: call.cookie_jar.as_ref().map(|_| CookieJar::default()),
            referer,
        };
        plan.read_cookies()?;
        Ok(plan)
    }

    /// Reads the cookies of `-b`: text with `=`, or files.
    fn read_cookies(&mut self) -> Result<()> {
        let (texts, files): (Vec<&String>, Vec<&String>) =
            self.args.call.cookies.iter().partition(|cookies| cookies.contains('='));
        self.cookies = texts.into_iter().map(String::as_str).collect::<Vec<_>>().join(";");
        ensure!(!self.cookies.contains(char::is_control), "a cookie has no control characters");
        for file in files {
            let jar = self.jar.get_or_insert_default();
            // An empty name lets redirected requests send the cookies of responses.
            if file.is_empty() {
                continue;
            }
            match std::fs::read_to_string(file) {
                Ok(text) => jar.read(&text, &self.url),
                // The first run has no file of cookies yet.
                Err(error)
                    if error.kind() == std::io::ErrorKind::NotFound
                        && self.args.call.cookie_jar.as_deref() == Some(Path::new(file)) => {}
                Err(error) => {
                    return Err(error)
                        .with_context(|| {
                            format!("`{file}` has no `=`, and cannot be read as a file")
                        })
                        .context(UnusableFile::of_cookies());
                }
            }
        }
        Ok(())
    }

    /// The number of bytes of the request body.
    pub(super) fn body_length(&self) -> u64 {
        self.body.length.unwrap_or(0)
    }

    /// The next request.
    pub(super) fn compose(&mut self) -> Result<ComposedRequest> {
        let call = &self.args.call;
        let described = SyntheticRequest {
            method: &self.method,
            is_https: self.url.is_https,
            host: &self.url.host,
            script_name: &self.url.script_name,
            path: &self.url.path,
            query: &self.url.query,
        };
        let mut variables = Variables::default();
        for (name, value) in described.variables() {
            variables.set(name, OsString::from_vec(value));
        }
        if let Some(script) = self.script {
            variables.set("SCRIPT_FILENAME", script);
        }
        let credentials = match &call.credentials {
            Some(credentials) => {
                // The message does not show the value, which may be part of a password.
                ensure!(credentials.contains(':'), "--user has no colon: write USER:PASSWORD");
                Some(credentials.as_bytes())
            }
            None => self.url.credentials.as_deref(),
        };
        if let Some(credentials) = credentials {
            let credentials = BASE64_STANDARD.encode(credentials);
            variables.set("HTTP_AUTHORIZATION", format!("Basic {credentials}"));
        }
        if let Some(user) = &call.remote_user {
            variables.set("REMOTE_USER", user);
            variables.set("AUTH_TYPE", "Basic");
        }
        match call.user_agent.as_deref() {
            // As for curl, an empty name sends no header.
            Some("") => variables.0.retain(|(name, _)| name != "HTTP_USER_AGENT"),
            Some(agent) => variables.set("HTTP_USER_AGENT", agent),
            None => {}
        }
        if let Some(referer) = self.referer.as_ref().filter(|referer| !referer.is_empty()) {
            variables.set("HTTP_REFERER", referer);
        }
        if call.compressed {
            variables.set("HTTP_ACCEPT_ENCODING", "deflate, gzip");
        }
        if self.args.body.is_json() {
            variables.set("HTTP_ACCEPT", "application/json");
        }
        let of_jar = self.jar.as_ref().and_then(|jar| jar.header(&self.url));
        let cookies = [of_jar.as_deref().unwrap_or_default(), &self.cookies];
        let cookies: Vec<&str> = cookies.into_iter().filter(|some| !some.is_empty()).collect();
        if !cookies.is_empty() {
            variables.set("HTTP_COOKIE", cookies.join("; "));
        }
        if let Some(length) = self.body.length {
            variables.set("CONTENT_LENGTH", length.to_string());
        }
        if let Some(content_type) = &self.body.content_type {
            variables.set("CONTENT_TYPE", content_type);
        }
        variables.add_headers(&self.headers);
        self.add_boundary(&mut variables);
        let uri = described.request_uri();
        for value in [call.user_agent.as_deref(), self.referer.as_deref()].into_iter().flatten() {
            ensure!(!value.contains(char::is_control), "`{value:?}` is not the value of a header");
        }
        self.body.file.rewind().context("the request body is sent from its beginning")?;
        Ok(ComposedRequest {
            request: Request::synthetic(&self.method, &uri, variables.0),
            body: self.body.file.try_clone().context("the request body")?.into(),
        })
    }

    /// Adds the boundary of a form to a Content-Type of the command line.
    fn add_boundary(&self, variables: &mut Variables) {
        let boundary = self.body.content_type.as_deref().and_then(|own| own.split_once("; "));
        let given = variables.0.iter_mut().find(|(name, _)| name == "CONTENT_TYPE");
        if let (Some((_, boundary)), Some((_, value))) = (boundary, given)
            && !value.to_string_lossy().contains("boundary=")
        {
            value.push("; ");
            value.push(boundary);
        }
    }

    /// The URL that the response with `head` redirects to, if it is a redirect.
    pub(super) fn redirect_url(&self, head: &ResponseHead) -> Option<String> {
        let is_redirect = (300..400).contains(&head.code());
        head.field("Location").filter(|_| is_redirect).map(|location| self.url.resolve(location))
    }

    /// Makes the next request one for `url`, to which the response with `status` has redirected.
    pub(super) fn follow(&mut self, url: Url, status: u16) -> Result<()> {
        let is_automatic =
            self.args.call.referer.as_ref().is_some_and(|url| url.ends_with(";auto"));
        if is_automatic {
            self.referer = Some(self.url.to_string());
        }
        let loses_body = match status {
            301..=303 => self.body.length.is_some(),
            _ => false,
        };
        if loses_body {
            self.body = Body::none()?;
        }
        let is_changed = loses_body || status == 303 && self.method != "HEAD";
        if is_changed && self.args.call.method.is_none() {
            "GET".clone_into(&mut self.method);
        }
        self.url = url;
        Ok(())
    }

    /// Keeps the cookies of the response with `head`, if the command keeps cookies.
    pub(super) fn keep_cookies(&mut self, head: &ResponseHead) {
        let Some(jar) = &mut self.jar else { return };
        let set = head.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case("Set-Cookie"));
        set.for_each(|(_, value)| jar.set(value, &self.url));
    }

    /// Writes the cookies to the file of `-c`.
    pub(super) fn write_cookies(&self) -> Result<()> {
        let (Some(path), Some(jar)) = (&self.args.call.cookie_jar, &self.jar) else {
            return Ok(());
        };
        jar.write(path)
            .with_context(|| format!("`{}` cannot be written", path.display()))
            .context(UnusableFile::of_cookie_jar())
    }
}
