mod readers;

use super::*;

/// The assignments: line, name, value.
fn read(text: &str) -> Vec<(usize, String, String)> {
    let DotenvFile {
        assignments,
        faults,
    } = parse(text);
    assert_eq!(faults, [], "{text}");
    let assignments = assignments.into_iter();
    assignments
        .map(|one| (one.line, one.name, one.value.to_string()))
        .collect()
}

fn one(text: &str) -> String {
    let mut all = read(text);
    assert_eq!(all.len(), 1, "{text}");
    all.remove(0).2
}

#[test]
fn lines_are_assignments_comments_or_blank() {
    let text = "# it's a key\n\nA=1\n  export B='two words' # not this\r\nC=\n\nD='x\ny'\nE = 5 \n\
                export\tF=6\nexport=7\nG = two words # it's";
    let expected = [
        (3, "A", "1"),
        (4, "B", "two words"),
        (5, "C", ""),
        (7, "D", "x\ny"),
        (9, "E", "5"),
        (10, "F", "6"),
        (11, "export", "7"),
        (12, "G", "two words"),
    ];
    let expected = expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned()));
    assert_eq!(read(text), expected);
}

#[test]
fn what_all_readers_read_alike_is_taken() {
    for (text, value) in [
        ("A=a=b==", "a=b=="),
        ("A= \t plain \t ", "plain"),
        ("A=a|b*c?{d}!e%f^g,h@i:j", "a|b*c?{d}!e%f^g,h@i:j"),
        ("A=it is #'\"`$\\", "it is"),
        ("A='p$ss # \"x\" `y` \\n \\d'", "p$ss # \"x\" `y` \\n \\d"),
        ("A=\"it's \\d # &;|<> \"", "it's \\d # &;|<> "),
        ("A=''", ""),
        ("A=\"\" # none", ""),
        ("\u{feff}A='a\r\nb'\r\n", "a\nb"),
        ("A=\"a\r\nb\"\r\n", "a\nb"),
        ("A='${b'", "${b"),
        ("A='${b:c}'", "${b:c}"),
        ("A='='", "="),
    ] {
        assert_eq!(one(text), value, "{text}");
    }
}

#[test]
fn what_they_read_differently_is_refused_by_its_line() {
    use LineFault::{
        AfterQuote, Backslash, BlankAfterEquals, Braces, Escape, Form, Hash, KeyMaterial,
        LineBreak, OddBlank, Open, Substitution, Unquoted,
    };
    for (text, line, fault) in [
        ("A=1\nB", 2, Form),
        ("x y\nA=1", 1, Form),
        ("export =1", 1, Form),
        ("A=1\rB=2\r", 1, LineBreak),
        ("A=1\r", 1, LineBreak),
        ("# a\rB=2\n", 1, LineBreak),
        ("# a\u{2028}B=2\n", 1, LineBreak),
        ("A='a' # b\rB=2\n", 1, LineBreak),
        ("A='a\rb'\n", 1, LineBreak),
        ("A='a\\\rb'\n", 1, LineBreak),
        ("A=   # a note", 1, Hash),
        ("A=# a note", 1, Hash),
        ("A=123\t# a note", 1, Hash),
        ("A=p#ss", 1, Hash),
        ("A=a\\", 1, Unquoted),
        ("A=a\\b", 1, Unquoted),
        ("A=a&b", 1, Unquoted),
        ("A=a;b", 1, Unquoted),
        ("A=a>b", 1, Unquoted),
        ("A=a||b", 1, Unquoted),
        ("A=$B", 1, Unquoted),
        ("A=a'b'", 1, Unquoted),
        ("A=a\"b\"", 1, Unquoted),
        ("A=`a`", 1, Unquoted),
        ("A=~/a", 1, Unquoted),
        ("A=a:~", 1, Unquoted),
        ("A=(a b)", 1, Unquoted),
        ("A=1 B=2", 1, Unquoted),
        ("A= B=2", 1, Unquoted),
        ("A=1 B+=2 export C", 1, Unquoted),
        ("export A=two words", 1, Unquoted),
        ("export A={a,b}", 1, Unquoted),
        ("export A= 1", 1, BlankAfterEquals),
        ("export A= '1'", 1, BlankAfterEquals),
        ("A=\u{a0}1", 1, OddBlank),
        ("A=1\u{feff}", 1, OddBlank),
        ("\nA='x", 2, Open),
        ("A=\"x", 1, Open),
        ("A=\"x\\", 1, Open),
        ("A=\"a\\nb\"", 1, Escape),
        ("A=\"a\\\"b\"", 1, Escape),
        ("A=\"a\\\\\"", 1, Escape),
        ("A='a\\'b'", 1, Backslash),
        ("A='a\\\\'", 1, Backslash),
        ("A=\"a$b\"", 1, Substitution),
        ("A=\"a`b\"", 1, Substitution),
        ("A='${b}'", 1, Braces),
        ("A='${b:-\n}'", 1, Braces),
        ("A='x'y", 1, AfterQuote),
        ("A='x'#y", 1, AfterQuote),
        ("\n\nA==", 3, KeyMaterial),
        ("A== # note", 1, KeyMaterial),
    ] {
        assert_eq!(parse(text).faults, [(line, fault)], "{text:?}");
    }
}

#[test]
fn every_faulty_line_is_named_and_the_others_are_still_read() {
    let text = "A=1\nB=a&b\nC='x\ny\\\\'\nD\nE=\"1\\n2\"\nF=6";
    let file = parse(text);
    let lines: Vec<_> = file.faults.iter().map(|(line, _)| *line).collect();
    assert_eq!(lines, [2, 3, 5, 6]);
    let names: Vec<_> = file.assignments.iter().map(|one| &one.name).collect();
    assert_eq!(names, ["A", "F"]);
}

/// 66 bytes, as `openssl rand -base64 66` prints them: the end has one sign of padding, with 67 it would have two.
const WRAPPED: [&str; 2] = [
    "q83vASNFZ4mrze8BI0VniavN7wEjRWeJq83vASNFZ4mrze8BI0VniavN7wEjRWeJ",
    "q83vASNFZ4mrze8BI0U",
];

#[test]
fn the_end_of_a_wrapped_key_is_no_name() {
    let [begin, end] = WRAPPED;
    for (ending, at_fault) in [("=", true), ("==", true), ("=''", false), ("=x", false)] {
        for line_end in ["\n", "\r\n"] {
            let text = format!("export KEY={begin}{line_end}{end}{ending}{line_end}");
            let faults = parse(&text).faults;
            assert_eq!(faults == [(2, LineFault::KeyMaterial)], at_fault, "{text}");
        }
    }
}

#[test]
fn a_real_name_without_a_value_is_a_name() {
    let [begin, _] = WRAPPED;
    let hexadecimal = "0123456789abcdef".repeat(4);
    for name in [
        "DEBUG",
        "API_KEY",
        "FOO",
        "npmAuthToken",
        "nextAuthUrl",
        "OAUTH2_ID",
        "_",
        "X_Y",
    ] {
        for before in [&hexadecimal, "short", "", "two words"] {
            assert_eq!(read(&format!("KEY={before}\n{name}=\n")).len(), 2, "{name}");
        }
        let apart = format!("KEY={begin}\n\n{name}=\nOTHER={begin}\n# a note\n{name}1=\n");
        assert_eq!(read(&apart).len(), 4, "{name}");
    }
}
