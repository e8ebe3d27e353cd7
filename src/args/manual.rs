//! Man page and shell completions, generated from the definition of the command line.

use std::fmt::Write as _;
use std::io;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Args;
use crate::build_info::VERSION;

/// Name of the program in its man page and completions.
const NAME: &str = "elements_exporter";

/// Returns the man page, including the commands with their flags.
///
/// # Errors
/// Never returns an error in practice, because writing to memory cannot fail.
pub fn man_page() -> io::Result<Vec<u8>> {
    let mut command = Args::command().display_name(NAME).version(VERSION);
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone()).source(format!("{NAME} {VERSION}"));
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    page.extend_from_slice(commands_section(&command).as_bytes());
    page.extend_from_slice(EXTRA_SECTIONS.as_bytes());
    man.render_version_section(&mut page)?;
    Ok(page)
}

/// Returns the section about the commands, each with its own flags.
fn commands_section(command: &clap::Command) -> String {
    let mut section = String::from(".SH COMMANDS\n");
    let escaped = |text: String| text.replace('-', "\\-");
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let about = command.get_about().map(ToString::to_string).unwrap_or_default();
        let _ = write!(section, ".TP\n\\fB{}\\fR\n{}\n", command.get_name(), escaped(about));
        let flags = command
            .get_arguments()
            .filter(|arg| !arg.is_global_set() && !is_built_in(arg));
        for arg in flags {
            let name = match arg.get_long() {
                Some(long) => format!("--{long}"),
                None => arg.get_id().to_string().to_uppercase(),
            };
            let defaults = arg.get_default_values().iter().map(|value| value.to_string_lossy());
            let defaults: Vec<_> = defaults.collect();
            let default = match defaults.as_slice() {
                [] => String::new(),
                defaults => format!(" [default: {}]", defaults.join(" ")),
            };
            let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
            let (name, help) = (escaped(name), escaped(format!("{help}{default}")));
            let _ = write!(section, ".RS\n.TP\n\\fB{name}\\fR\n{help}\n.RE\n");
        }
    }
    section
}

fn is_built_in(arg: &clap::Arg) -> bool {
    matches!(arg.get_id().as_str(), "help" | "version")
}

/// Sections of the man page that are not generated from the command line.
const EXTRA_SECTIONS: &str = ".SH FILES
.TP
\\fI/etc/elements_exporter/elements.yml\\fR
The configuration of the packaged service. Its comments list every key with its default. Every key can be overridden
by an environment variable, such as \\fBELEMENTS_COLLECTORS__JOBS__INTERVAL\\fR.
.TP
\\fI/usr/share/doc/elements\\-exporter/docs/configuration.md\\fR
The description of every key, installed by the Debian package.
.SH SIGNALS
.TP
\\fBSIGHUP\\fR
Reloads the configuration after startup is complete. If the configuration is invalid, an error is logged, and the
previous configuration stays in effect. Commands that exit on their own ignore the signal.
.TP
\\fBSIGTERM\\fR, \\fBSIGINT\\fR
Finishes the responses in progress, saves the state, and exits.
.SH EXIT STATUS
.TP
\\fB0\\fR
Success.
.TP
\\fB1\\fR
A failed check, or any error without an exit code of its own, such as an address that is in use.
.TP
\\fB64\\fR
Invalid usage.
.TP
\\fB78\\fR
Invalid configuration. The message contains the file, the key and the expected value.
";

/// Returns the completions for a shell.
pub fn completions(shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Args::command().display_name(NAME), NAME, &mut text);
    text
}
