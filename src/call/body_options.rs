//! The options that make up a request body. curl joins them in their order on the command line.

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, FromArgMatches, Id};

use crate::config::options::{Context, contexts::ActsIn};

/// How the value of an option becomes a part of the body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DataKind {
    /// Text, or a file whose line ends are removed.
    Ascii,
    /// Text; `@` has no meaning.
    Raw,
    /// Text, or a file.
    Binary,
    /// Text or a file, percent-encoded.
    UrlEncoded,
    /// JSON, as text or from a file.
    Json,
}

/// How the value of an option becomes a part of a form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FormKind {
    /// A value, a file, or a value from a file.
    Form,
    /// A value; no character of it has a meaning.
    Text,
}

/// The parts of a request body, in their order on the command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct BodyOptions {
    /// The parts of data.
    pub(crate) data: Vec<(DataKind, OsString)>,
    /// The parts of a form.
    pub(crate) form: Vec<(FormKind, OsString)>,
}

impl BodyOptions {
    /// Is the body JSON?
    pub(crate) fn is_json(&self) -> bool {
        self.data.iter().any(|(kind, _)| *kind == DataKind::Json)
    }

    /// Is there no body?
    pub(crate) fn is_empty(&self) -> bool {
        self.data.is_empty() && self.form.is_empty()
    }
}

/// The options, each with its own values.
#[derive(Args, Debug)]
#[command(next_help_heading = "Request body")]
struct BodyArgs {
    /// Send DATA as the request body: text, @FILE, or @- for standard input (repeatable)
    ///
    /// `&` joins the values of several options. Line ends and NUL bytes of a file are removed, as
    /// by curl; --data-binary keeps them.
    #[arg(short = 'd', long, alias = "data-ascii", value_name = "DATA")]
    data: Vec<OsString>,

    /// Send DATA as --data does, without a meaning of `@` (repeatable)
    #[arg(long, value_name = "DATA")]
    data_raw: Vec<OsString>,

    /// Send DATA as --data does, with each byte of a file (repeatable)
    #[arg(long, value_name = "DATA")]
    data_binary: Vec<OsString>,

    /// Send DATA percent-encoded: TEXT, =TEXT, NAME=TEXT, @FILE or NAME@FILE (repeatable)
    #[arg(long, value_name = "DATA")]
    data_urlencode: Vec<OsString>,

    /// Send DATA as JSON, with the headers Content-Type and Accept for it (repeatable)
    #[arg(long, value_name = "DATA")]
    json: Vec<OsString>,

    /// Send a field of a form (multipart/form-data): NAME=TEXT, NAME=@FILE or NAME=<FILE
    /// (repeatable)
    ///
    /// `;type=MIME-TYPE` and `;filename=NAME` may follow. @- and <- are standard input.
    #[arg(
        short = 'F',
        long,
        value_name = "FIELD",
        conflicts_with_all = ["data", "data_raw", "data_binary", "data_urlencode", "json"]
    )]
    form: Vec<OsString>,

    /// Send a field of a form, NAME=TEXT, without a meaning of `@`, `<` and `;` (repeatable)
    #[arg(
        long,
        value_name = "FIELD",
        conflicts_with_all = ["data", "data_raw", "data_binary", "data_urlencode", "json"]
    )]
    form_string: Vec<OsString>,
}

/// The values of the options `ids`, in their order on the command line.
fn ordered<K: Copy>(matches: &ArgMatches, ids: &[(&str, K)]) -> Vec<(K, OsString)> {
    let mut found: Vec<(usize, K, OsString)> = Vec::new();
    for (id, kind) in ids {
        let (Some(values), Some(indices)) =
            (matches.get_many::<OsString>(id), matches.indices_of(id))
        else {
            continue;
        };
        found.extend(indices.zip(values).map(|(index, value)| (index, *kind, value.clone())));
    }
    found.sort_by_key(|(index, ..)| *index);
    found.into_iter().map(|(_, kind, value)| (kind, value)).collect()
}

impl FromArgMatches for BodyOptions {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let data = [
            ("data", DataKind::Ascii),
            ("data_raw", DataKind::Raw),
            ("data_binary", DataKind::Binary),
            ("data_urlencode", DataKind::UrlEncoded),
            ("json", DataKind::Json),
        ];
        let form = [("form", FormKind::Form), ("form_string", FormKind::Text)];
        Ok(Self { data: ordered(matches, &data), form: ordered(matches, &form) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for BodyOptions {
    fn augment_args(command: Command) -> Command {
        BodyArgs::augment_args(command)
    }

    fn augment_args_for_update(command: Command) -> Command {
        BodyArgs::augment_args_for_update(command)
    }

    fn group_id() -> Option<Id> {
        BodyArgs::group_id()
    }
}

impl ActsIn for BodyOptions {
    const CONTEXTS: &'static [Context] = &[Context::Call, Context::Via];
}
