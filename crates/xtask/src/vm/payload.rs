//! What a VM gets to run: files below `/t` of the guest, of which `/t/run` is started.

use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::cpio::Archive;

const INIT: &[u8] = include_bytes!("guest/init");

/// Files for the guest's `/t`. Later entries of the same name replace earlier ones, as the kernel unpacks them in turn.
#[derive(Debug, Default)]
pub(crate) struct Payload {
    entries: Vec<Entry>,
}

#[derive(Debug)]
enum Entry {
    Tree {
        path: String,
        from: PathBuf,
    },
    File {
        path: String,
        mode: u32,
        from: PathBuf,
    },
    Bytes {
        path: String,
        mode: u32,
        content: Vec<u8>,
    },
}

impl Payload {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// A directory whose `run` is to be run, or one program or script to be run, with these arguments.
    pub(crate) fn for_program(path: &Path, arguments: &[String]) -> Result<Self> {
        let mut payload = Self::new();
        let program = if path.is_dir() {
            if !path.join("run").is_file() {
                bail!(
                    "{} has no program `run`; add one, or name a file",
                    path.display()
                );
            }
            payload.directory(path);
            "run"
        } else {
            let name = path.file_name().and_then(|name| name.to_str());
            let name = name.with_context(|| format!("{} is no file to run", path.display()))?;
            payload.file(name, 0o755, path);
            name
        };
        if program != "run" || !arguments.is_empty() {
            // Not `run` itself, or the script would start itself.
            let target = if program == "run" {
                "run.program"
            } else {
                program
            };
            if program == "run" {
                payload.file(target, 0o755, &path.join("run"));
            }
            payload
                .command(std::iter::once(format!("./{target}")).chain(arguments.iter().cloned()));
        }
        Ok(payload)
    }

    /// Everything in a directory of the host.
    pub(crate) fn directory(&mut self, from: &Path) {
        self.entries.push(Entry::Tree {
            path: "t".to_owned(),
            from: from.to_owned(),
        });
    }

    /// `name` is relative to `/t`.
    pub(crate) fn file(&mut self, name: &str, mode: u32, from: &Path) {
        self.entries.push(Entry::File {
            path: format!("t/{name}"),
            mode,
            from: from.to_owned(),
        });
    }

    pub(crate) fn bytes(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries.push(Entry::Bytes {
            path: format!("t/{name}"),
            mode,
            content: content.to_vec(),
        });
    }

    /// Makes `/t/run` a script that becomes this command.
    pub(crate) fn command(&mut self, words: impl Iterator<Item = String>) {
        let words: Vec<String> = words.map(|word| quoted(&word)).collect();
        self.bytes(
            "run",
            0o755,
            format!("#!/bin/sh\nexec {}\n", words.join(" ")).as_bytes(),
        );
    }

    /// The archive behind those of the image: our init, and the files.
    pub(super) fn write(&self, out: &mut BufWriter<File>) -> Result<()> {
        let mut archive = Archive::new(out);
        archive.bytes("init", 0o755, INIT)?;
        for entry in &self.entries {
            match entry {
                Entry::Tree { path, from } => archive.tree(path, from)?,
                Entry::File { path, mode, from } => archive.file(path, *mode, from)?,
                Entry::Bytes {
                    path,
                    mode,
                    content,
                } => archive.bytes(path, *mode, content)?,
            }
        }
        archive.finish()?;
        Ok(())
    }
}

/// A word that a shell reads back as it is.
pub(crate) fn quoted(word: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "_-./:=,@%+".contains(character);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_only_when_a_shell_would_change_them() {
        let cases = [
            ("--exact", "--exact"),
            ("tests::a_b", "tests::a_b"),
            ("", "''"),
            ("two words", "'two words'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ];
        for (word, expected) in cases {
            assert_eq!(quoted(word), expected);
        }
    }
}
