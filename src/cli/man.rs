//! The man pages: one for wsgate, and one for each command. Names, synopsis and options come from
//! the structures of the command line; the other sections are in `man_sections`.

use clap_mangen::{
    Man,
    roff::{Roff, bold, roman},
};
use diagnostics::message::{Code, LogMessage};

use crate::{
    cli::{commands::program, man_sections::Sections, man_terms::EXIT_STATUS},
    exit::CommandError,
};

/// The man page of the command `name`, or of wsgate itself.
///
/// # Errors
/// If there is no such command, or the page cannot be made.
pub(super) fn page(name: Option<&str>) -> Result<Vec<u8>, CommandError> {
    let mut program = program();
    program.build();
    let command = match name {
        None => &program,
        Some(name) => {
            let known = program.find_subcommand(name).filter(|known| !known.is_hide_set());
            known.ok_or_else(|| {
                CommandError::usage(
                    LogMessage::new(Code::BadSetting, format!("`{name}` has no man page"))
                        .hint("`wsgate --help` lists the commands"),
                )
            })?
        }
    };
    render(command, name.unwrap_or("")).map_err(|error| {
        CommandError::failed(LogMessage::new(
            Code::NotWritten,
            format!("the man page cannot be made: {error}"),
        ))
    })
}

fn render(command: &clap::Command, name: &str) -> std::io::Result<Vec<u8>> {
    let sections = Sections::of(name);
    // The options stand in a section of their own.
    let usage = command.clone().render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ").to_owned();
    let man = Man::new(command.clone().override_usage(usage))
        .source(concat!("wsgate ", env!("CARGO_PKG_VERSION")))
        .manual("wsgate");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    let mut roff = Roff::new();
    roff.control("SH", ["DESCRIPTION"]);
    for paragraph in sections.description {
        roff.control("PP", []);
        roff.text([roman(*paragraph)]);
    }
    roff.control("SH", ["OPTIONS"]);
    roff.to_writer(&mut page)?;
    page.extend_from_slice(options(command, &man)?.as_bytes());

    let mut roff = Roff::new();
    let commands = command.get_subcommands().filter(|known| !known.is_hide_set());
    let commands: Vec<(String, String)> = commands
        .map(|known| {
            let about = known.get_about().map(ToString::to_string).unwrap_or_default();
            (format!("wsgate-{}(1)", known.get_name()), about)
        })
        .collect();
    definitions(&mut roff, "COMMANDS", &[&commands]);
    definitions(&mut roff, "FILES", sections.files);
    definitions(&mut roff, "ENVIRONMENT", sections.environment);
    definitions(&mut roff, "SIGNALS", &[sections.signals]);
    definitions(&mut roff, "EXIT STATUS", &[EXIT_STATUS]);
    roff.control("SH", ["EXAMPLES"]);
    for (text, lines) in sections.examples {
        roff.control("PP", []);
        roff.text([roman(*text)]);
        roff.control("PP", []);
        roff.control("RS", ["4"]);
        roff.control("nf", []);
        for line in *lines {
            roff.text([bold(*line)]);
        }
        roff.control("fi", []);
        roff.control("RE", []);
    }
    roff.control("SH", ["SEE ALSO"]);
    roff.text([roman(sections.see_also)]);
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// The options, with the headings of the help as parts of the section OPTIONS.
fn options(command: &clap::Command, man: &Man) -> std::io::Result<String> {
    let mut rendered = Vec::new();
    man.render_options_section(&mut rendered)?;
    let mut options = String::from_utf8_lossy(&rendered).replace(".SH OPTIONS\n", "");
    for heading in command.get_arguments().filter_map(clap::Arg::get_help_heading) {
        for quote in ["", "\""] {
            let section = format!(".SH {quote}{}{quote}\n", heading.to_uppercase());
            options = options.replace(&section, &format!(".SS {quote}{heading}{quote}\n"));
        }
    }
    Ok(options)
}

/// A section of terms and their explanations; empty without terms.
fn definitions<S: AsRef<str>>(roff: &mut Roff, heading: &str, lists: &[&[(S, S)]]) {
    if lists.iter().all(|terms| terms.is_empty()) {
        return;
    }
    roff.control("SH", [heading]);
    for (term, explanation) in lists.iter().copied().flatten() {
        roff.control("TP", []);
        roff.text([bold(term.as_ref())]);
        roff.text([roman(explanation.as_ref())]);
    }
}
