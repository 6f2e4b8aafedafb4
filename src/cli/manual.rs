//! `tidegate man`: the manual, a page for each command, made from what `--help` says.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Command, CommandFactory};
use clap_mangen::Man;
use clap_mangen::roff::{Roff, roman};

use super::{CommandLine, Failure};
use crate::config::cause;

const EXAMPLES: &str = "\
Examples:
  tidegate man | man -l -
  tidegate man /usr/local/share/man/man1

The Debian package brings all pages: `man tidegate`, `man tidegate-volume-verify`.

Exit codes: 0 printed or written, 1 not, 64 misused";

/// Print the manual, or write its pages into a folder
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Where to write a page for each command; left out: the first one is printed
    folder: Option<PathBuf>,
}

/// Writes the pages; what is to be printed.
pub(super) fn run(args: &Args) -> Result<String, Failure> {
    let mut command = CommandLine::command().disable_help_subcommand(true);
    command.build();
    match &args.folder {
        Some(folder) => {
            write_into(folder, &command, "tidegate").map(|()| String::new()).map_err(|error| {
                Failure::Failed(format!(
                    "{} cannot be written: {}; name a folder that is there",
                    folder.display(),
                    cause(&error)
                ))
            })
        }
        None => page(&command, "tidegate")
            .map_err(|error| Failure::Failed(format!("the manual cannot be made: {error}"))),
    }
}

/// The page of a command, and those of what stands below it.
fn write_into(folder: &Path, command: &Command, name: &str) -> io::Result<()> {
    fs::write(folder.join(format!("{name}.1")), page(command, name)?)?;
    for below in command.get_subcommands() {
        write_into(folder, below, &format!("{name}-{}", below.get_name()))?;
    }
    Ok(())
}

fn page(command: &Command, name: &str) -> io::Result<String> {
    let man = Man::new(command.clone());
    let version = env!("CARGO_PKG_VERSION");
    // Written here, as an empty date is lost otherwise: a page says its version instead.
    let title = format!(".TH {} 1 \"\" \"tidegate {version}\" Tidegate\n", name.to_uppercase());
    let mut page = title.into_bytes();
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if command.has_subcommands() {
        man.render_subcommands_section(&mut page)?;
    }
    foot(command).to_writer(&mut page)?;
    String::from_utf8(page).map_err(io::Error::other)
}

/// What stands under the options of `--help`: examples as they are, notes, and exit codes.
fn foot(command: &Command) -> Roff {
    let text = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let text = text.replace("\nExit codes: ", "\n\nExit codes: ");
    let mut roff = Roff::new();
    let mut heading = "";
    for paragraph in text.split("\n\n").map(str::trim).filter(|text| !text.is_empty()) {
        if let Some(examples) = paragraph.strip_prefix("Examples:\n") {
            roff.control("SH", ["EXAMPLES"]).control("nf", []);
            for line in examples.lines() {
                roff.text([roman(line.trim_start())]);
            }
            roff.control("fi", []);
            continue;
        }
        let codes = paragraph.strip_prefix("Exit codes: ");
        let next = if codes.is_some() { "EXIT STATUS" } else { "NOTES" };
        match heading == next {
            true => roff.control("PP", []),
            false => roff.control("SH", [next]),
        };
        heading = next;
        roff.text([roman(codes.unwrap_or(paragraph))]);
    }
    roff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_a_page_with_its_options_examples_and_exit_codes() {
        let folder = tempfile::tempdir().unwrap();
        run(&Args { folder: Some(folder.path().to_owned()) }).unwrap();
        let page = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        let root = CommandLine::command();
        let mut pages = 1;
        for command in root.get_subcommands() {
            let name = format!("tidegate-{}", command.get_name());
            assert!(page("tidegate.1").contains(&name.replace('-', "\\-")), "{name}");
            assert!(page(&format!("{name}.1")).contains(".SH EXAMPLES\n.nf\n"), "{name}");
            let below = command.get_subcommands().map(|one| format!("{name}-{}", one.get_name()));
            for name in below.chain([name.clone()]) {
                let codes = page(&format!("{name}.1")).contains(".SH \"EXIT STATUS\"\n0 ");
                assert!(codes, "{name} tells no exit codes");
            }
            pages += 1 + command.get_subcommands().count();
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), pages);
        let verify = page("tidegate-volume-verify.1");
        assert!(verify.starts_with(".TH TIDEGATE-VOLUME-VERIFY 1 "), "{verify}");
        assert!(verify.contains("\\-\\-json"), "{verify}");
        assert!(verify.contains(".SH \"EXIT STATUS\"\n0 every checksum is right"), "{verify}");
    }

    #[test]
    fn a_folder_that_is_not_there_is_one_clear_line() {
        let Err(Failure::Failed(text)) = run(&Args { folder: Some("no/such".into()) }) else {
            panic!("there is no such folder")
        };
        let expected =
            "no/such cannot be written: no such file or directory; name a folder that is there";
        assert_eq!(text, expected);
    }
}
