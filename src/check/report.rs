//! The report of `wsgate check`: what was found, warnings, problems, and the exit code.

use std::fmt::{
    Write as _, {self},
};

use diagnostics::escape;

use crate::exit::{CommandError, Exit, print};

/// Indents a line below the value of the previous line.
const CONTINUATION: &str = "\n               ";

/// The lines of the report.
pub(super) struct Report {
    text: String,
    warnings: Vec<String>,
    problems: Vec<String>,
    /// The last line, if there is no problem.
    conclusion: &'static str,
}

impl Default for Report {
    fn default() -> Self {
        Self {
            text: String::new(),
            warnings: Vec::new(),
            problems: Vec::new(),
            conclusion: "no problem was found",
        }
    }
}

impl Report {
    /// Adds a line with the value `value`.
    pub(super) fn line(&mut self, name: &str, value: impl fmt::Display) {
        write_line(&mut self.text, name, &value.to_string());
    }

    /// Adds something that may go wrong.
    pub(super) fn warning(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }

    /// Adds something that goes wrong at a request.
    pub(super) fn problem(&mut self, problem: impl Into<String>) {
        self.problems.push(problem.into());
    }

    /// Sets the last line for an application without a problem.
    pub(super) fn conclude(&mut self, conclusion: &'static str) {
        self.conclusion = conclusion;
    }

    /// Prints the report. The last line has the result that the exit code stands for.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn print(mut self) -> Result<Exit, CommandError> {
        let mut text = self.findings();
        let mut last = match self.problems.len() {
            0 => self.conclusion.to_owned(),
            1 => "1 problem was found".to_owned(),
            count => format!("{count} problems were found"),
        };
        match self.warnings.len() {
            0 => {}
            1 => last.push_str("; 1 warning"),
            count => {
                // Writing to a string cannot fail.
                let _ = write!(last, "; {count} warnings");
            }
        }
        last.push('\n');
        text += &last;
        print(text.as_bytes())?;
        Ok(if self.problems.is_empty() { Exit::Success } else { Exit::Failure })
    }

    /// Prints the report without a result.
    ///
    /// # Errors
    /// If standard output cannot be written.
    pub(super) fn print_findings(mut self) -> Result<(), CommandError> {
        print(self.findings().as_bytes()).map(drop)
    }

    /// The text of the report without a result.
    fn findings(&mut self) -> String {
        let mut text = std::mem::take(&mut self.text);
        for (name, texts) in [("warning", &self.warnings), ("problem", &self.problems)] {
            texts.iter().for_each(|value| write_line(&mut text, name, value.trim_end()));
        }
        text
    }
}

fn write_line(text: &mut String, name: &str, value: &str) {
    let shown = escape::lines(value.as_bytes()).replace('\n', CONTINUATION);
    // Writing to a string cannot fail.
    let _ = writeln!(text, "{name:<14} {shown}");
}
