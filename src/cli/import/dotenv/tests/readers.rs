//! Files as the crate `dotenvy`, Python's dotenv and shells read them, by the programs themselves.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use proptest::{collection::vec, prelude::*, sample::select, test_runner::TestRunner};
use serde_json::{Value, json};

use super::super::{Assignment, DotenvFile, parse};
use crate::domain::SecretName;

/// Names and values.
type Values = BTreeMap<String, String>;

/// A program that answers each line of JSON by one.
struct Program {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Program {
    fn start(command: &mut Command) -> Self {
        let piped = command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = piped.spawn().unwrap();
        let questions = child.stdin.take().unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Self {
            child,
            questions,
            answers,
        }
    }

    fn ask(&mut self, question: &Value) -> Value {
        writeln!(self.questions, "{question}").unwrap();
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Python with dotenv: a file's values, `null` for a name without `=`. Lines that it cannot read are left out.
const PYTHON: &str = "
import dotenv, io, json, logging, sys
logging.disable()
for line in sys.stdin:
    file = io.TextIOWrapper(io.BytesIO(json.loads(line).encode()), 'utf-8')
    print(json.dumps(dotenv.dotenv_values(stream=file)), flush=True)
";

/// Python with a shell: for each assignment what the shell sets the name to, `null` where it sets nothing. No other
/// program can run there.
const SHELL: &str = "
import json, shutil, subprocess, sys, tempfile
shell = shutil.which(sys.argv[1])
script = '''unset A; . ./file; case ${A+set} in set) printf 's%s' \"$A\";; *) printf u;; esac'''
with tempfile.TemporaryDirectory() as folder:
    for line in sys.stdin:
        with open(folder + '/file', 'w', newline='') as file:
            file.write(json.loads(line))
        run = subprocess.run([shell, '-c', script], cwd=folder, env={'PATH': '/nonexistent', 'HOME': '/home'},
                             stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        said = run.stdout.decode()
        print(json.dumps(said[1:] if said.startswith('s') else None), flush=True)
";

/// The private Python that `scripts/test python` makes beside the build.
fn python() -> Program {
    let test = std::env::current_exe().unwrap();
    let target: Option<PathBuf> = test.ancestors().nth(3).map(Into::into);
    let python = target.unwrap().join("python/bin/python");
    assert!(
        python.is_file(),
        "{} is missing: scripts/test python",
        python.display()
    );
    Program::start(Command::new(python).args(["-c", PYTHON]))
}

fn shell(name: &str) -> Program {
    Program::start(Command::new("python3").args(["-c", SHELL, name]))
}

/// A file's values as rekey reads it, unless it refuses the file.
fn ours(file: &str) -> Option<Values> {
    let DotenvFile {
        assignments,
        faults,
    } = parse(file);
    let named = |one: &Assignment| SecretName::parse(&one.name).is_ok();
    let good = faults.is_empty() && assignments.iter().all(named);
    let values = assignments.into_iter();
    let values = values.map(|one| (one.name, one.value.to_string()));
    good.then(|| values.collect())
}

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(cases)
    })
}

/// As `dotenvy` reads it, unless it cannot, or mistakes what is in a comment: a quote after `  #` begins a value.
fn dotenvy(file: &str) -> Option<Values> {
    let mistaken = |line: &str| {
        let (_, comment) = line.split_once('#').unwrap_or_default();
        comment.contains(['\'', '"', '\\'])
    };
    if file.lines().any(mistaken) {
        return None;
    }
    // It keeps the CR of a CR LF in quotes.
    let file = file.replace("\r\n", "\n");
    let values = dotenvy::from_read_iter(file.as_bytes());
    values.collect::<Result<_, _>>().ok()
}

/// Text that means something to one reader or the other, and text that does not.
const PIECES: &[&str] = &[
    "a", "b1", "sk-", "é", " ", "  ", "\t", "=", "#", " #", " # ", "\t#", "'", "\"", "`", "\\",
    "\\n", "\\d", "\\\\", "\\'", "\\\"", "$", "$A", "${A}", "${A:-b}", "${", "}", "&", ";", "|",
    "<", ">", "(", ")", "{a,b}", "~", "~/", ":~", ":", "!", "*", "[", "A=", "B+=c", "export ",
    "\r", "\r\n", "\n", "\u{a0}", "\u{85}", "\u{b}", "\u{1c}", "\u{2028}", "\u{feff}", ",", "/",
    "+", "@", "%41",
];

/// Characters that values without quotes, and in either quotes, are mostly made of.
const PLAIN: &[&str] = &[
    "a", "B", "7", " ", "é", ":", "/", "=", "-", ".", "|", "!", "*", "\u{a0}", "x y",
];
const SINGLE: &[&str] = &[
    "a", " ", "\"", "$A", "\\n", "\\d", "#", " #", "`", "&", "\n", "\r\n", "${", "}", "\u{2028}",
    "\t",
];
const DOUBLE: &[&str] = &[
    "a", " ", "'", "\\d", "\\.", "#", " #", "&", ";", "\n", "\r\n", "\u{2028}", "\t", "{", "!",
];

/// Mostly as users write it.
fn value() -> impl Strategy<Value = String> {
    let of = |pieces| vec(select(pieces), 0..6).prop_map(|pieces: Vec<&str>| pieces.concat());
    prop_oneof![
        4 => of(PLAIN),
        2 => of(SINGLE).prop_map(|inside| format!("'{inside}'")),
        2 => of(DOUBLE).prop_map(|inside| format!("\"{inside}\"")),
        2 => of(PIECES),
    ]
}

fn statement(name: &'static str) -> impl Strategy<Value = String> {
    let export = prop_oneof![8 => Just(""), 1 => Just("export "), 1 => Just("export\t")];
    let equals = prop_oneof![6 => Just("="), 1 => Just(" ="), 1 => Just("= "), 1 => Just("\t=\t")];
    let comment = select(&["", "", "", " ", " # it's", "\t# b", "# c", " #"][..]);
    (export, equals, value(), comment).prop_map(move |(export, equals, value, comment)| {
        format!("{export}{name}{equals}{value}{comment}")
    })
}

fn file() -> impl Strategy<Value = String> {
    let end =
        prop_oneof![4 => Just("\n"), 2 => Just("\r\n"), 1 => Just("\n\n"), 1 => Just("\n# it's\n")];
    let other = vec(select(PIECES), 0..4).prop_map(|pieces| pieces.concat());
    (
        statement("A"),
        end,
        prop_oneof![6 => statement("KEY"), 1 => other],
    )
        .prop_map(|(first, end, second)| format!("{first}{end}{second}\n"))
}

#[test]
fn no_file_is_read_otherwise_than_by_two_independent_readers() {
    let python = RefCell::new(python());
    let (taken, agreed) = (Cell::new(0), Cell::new(0));
    let mut runner = runner(4000);
    let checked = runner.run(&file(), |file| {
        let Some(ours) = ours(&file) else {
            return Ok(());
        };
        taken.set(taken.get() + 1);
        prop_assert_eq!(python.borrow_mut().ask(&json!(file)), json!(ours), "Python");
        if let Some(theirs) = dotenvy(&file) {
            prop_assert_eq!(theirs, ours, "dotenvy");
            agreed.set(agreed.get() + 1);
        }
        Ok(())
    });
    checked.unwrap();
    let (taken, agreed) = (taken.get(), agreed.get());
    assert!(
        taken > 800 && agreed > 300,
        "{taken} taken, {agreed} agreed"
    );
}

#[test]
fn no_shell_reads_another_value_than_ours() {
    let shells = ["sh", "bash"].map(|name| RefCell::new(shell(name)));
    let agreed = Cell::new(0);
    let mut runner = runner(400);
    let checked = runner.run(&statement("A"), |line| {
        // That a line ends in CR LF, no shell knows.
        let line = line.replace("\r\n", "\n");
        let Some(ours) = ours(&line) else {
            return Ok(());
        };
        for shell in &shells {
            let theirs = shell.borrow_mut().ask(&json!(line));
            if !theirs.is_null() {
                prop_assert_eq!(theirs, json!(ours.get("A")));
                agreed.set(agreed.get() + 1);
            }
        }
        Ok(())
    });
    checked.unwrap();
    let agreed = agreed.get();
    assert!(agreed > 100, "{agreed} agreed");
}
