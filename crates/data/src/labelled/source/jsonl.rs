//! One JSON object a line.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::Value;

use super::super::{CellFault, LabelledError, Place, Unit};
use super::Cells;
use crate::input::{Lines, Watch};

/// The columns of a row, in the order of the line; a name may stand twice.
struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Columns;

        impl<'de> Visitor<'de> for Columns {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut columns = Vec::new();
                while let Some(column) = map.next_entry()? {
                    columns.push(column);
                }
                Ok(Object(columns))
            }
        }

        deserializer.deserialize_map(Columns)
    }
}

/// A text of objects; the first tells which columns there are.
pub(super) struct Jsonl {
    lines: Lines,
    first: Option<(u64, Object)>,
    /// Names of the columns that are read.
    chosen: Vec<String>,
}

impl Jsonl {
    pub(super) fn open(
        mut lines: Lines,
        watch: &Watch,
        choose: impl FnOnce(&[String]) -> Result<Vec<usize>, LabelledError>,
    ) -> Result<Self, LabelledError> {
        let first = next_object(&mut lines, watch)?;
        let names: Vec<String> =
            first.iter().flat_map(|(_, object)| object.0.iter().map(|(name, _)| name.clone())).collect();
        let chosen = choose(&names)?.into_iter().map(|column| names[column].clone()).collect();
        Ok(Self { lines, first, chosen })
    }

    pub(super) fn read(&mut self, row: &mut Cells, watch: &Watch) -> Result<bool, LabelledError> {
        let next = match self.first.take() {
            None => next_object(&mut self.lines, watch)?,
            first => first,
        };
        let Some((line, object)) = next else { return Ok(false) };
        row.begin(line, self.chosen.len());
        for (index, name) in self.chosen.iter().enumerate() {
            let at_cell = |fault| {
                let place = Place { unit: Unit::Line, number: line };
                LabelledError::Cell { file: watch.file.clone(), place, column: name.clone(), fault }
            };
            let mut values = object.0.iter().filter(|(column, _)| column == name).map(|(_, value)| value);
            let value = values.next();
            if values.next().is_some() {
                return Err(at_cell(CellFault::Twice));
            }
            match value {
                None | Some(Value::Null) => row.set(index, b""),
                Some(Value::String(text)) => row.set(index, text.as_bytes()),
                Some(value @ (Value::Bool(_) | Value::Number(_))) => row.set(index, value.to_string().as_bytes()),
                Some(Value::Array(_) | Value::Object(_)) => return Err(at_cell(CellFault::Nested)),
            }
        }
        Ok(true)
    }
}

fn next_object(lines: &mut Lines, watch: &Watch) -> Result<Option<(u64, Object)>, LabelledError> {
    let Some((line, text)) = lines.next_filled().map_err(|error| watch.explain(error))? else { return Ok(None) };
    let object = serde_json::from_slice(text);
    let mut object: Object = object.map_err(|source| LabelledError::Json { file: watch.file.clone(), line, source })?;
    keep_spelling(&mut object, text);
    Ok(Some((line, object)))
}

/// Makes texts of the numbers that were read as floats, with all their digits: the parser keeps no more of large integers and long
/// fractions than a float holds.
fn keep_spelling(object: &mut Object, line: &[u8]) {
    let is_float = |value: &Value| value.as_number().is_some_and(serde_json::Number::is_f64);
    if !object.0.iter().any(|(_, value)| is_float(value)) {
        return;
    }
    for ((_, value), spelling) in object.0.iter_mut().zip(spellings(line)) {
        if is_float(value) {
            *value = Value::String(String::from_utf8_lossy(spelling).into_owned());
        }
    }
}

/// The values of an object as they are written, in their order; the line is known to be a valid object.
fn spellings(line: &[u8]) -> Vec<&[u8]> {
    let (mut found, mut depth, mut start, mut at) = (Vec::new(), 0_u32, 0, 0);
    while let Some(&byte) = line.get(at) {
        match byte {
            b'"' => {
                // To the end of the text; a quote after a backslash is part of it.
                at += 1;
                while line.get(at).is_some_and(|&byte| byte != b'"') {
                    at += if line[at] == b'\\' { 2 } else { 1 };
                }
            }
            b'{' | b'[' => depth += 1,
            b':' if depth == 1 => start = at + 1,
            b',' if depth == 1 => found.push(line[start..at].trim_ascii()),
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    found.push(line[start..at].trim_ascii());
                }
            }
            _ => {}
        }
        at += 1;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;
    use std::path::Path;

    #[test]
    fn values_are_as_written() {
        const TEXT: &str = concat!(
            "{\"b\": 1, \"a\": \" AC \", \"c\": 0.50, \"d\": [1]}\n",
            "{\"a\": \"\\u0041\", \"c\": -1e3, \"b\": true}\r\n",
            "{\"a\": null, \"e\": {}, \"c\": 123456789012}",
        );
        let (text, watch) = input::start(Path::new("-"), Box::new(TEXT.as_bytes())).unwrap();
        let choose = |names: &[String]| {
            assert_eq!(names, ["b", "a", "c", "d"]);
            Ok(vec![1, 2, 0])
        };
        let mut reader = Jsonl::open(Lines::new(text), &watch, choose).unwrap();
        let (mut rows, mut row) = (Vec::new(), Cells::default());
        while reader.read(&mut row, &watch).unwrap() {
            let cells: Vec<_> = row.cells.iter().map(|cell| String::from_utf8_lossy(cell)).collect();
            rows.push((row.number, cells.join("|")));
        }
        let expected = [(1, "AC|0.50|1"), (2, "A|-1e3|true"), (3, "|123456789012|")];
        assert_eq!(rows, expected.map(|(line, cells)| (line, cells.to_owned())));
    }

    #[test]
    fn numbers_keep_all_their_digits() {
        const LINE: &str = concat!(
            r#"{"a,:\"}": "b,:\"}\\", "c" :[1.5, {"d": 2.5}],"e":123456789012345678901 , "f": -0,"#,
            r#" "g": {"h": [3.5]}, "i": 0.1234567890123456789012, "j": 18446744073709551615, "k": 1e-3}"#,
        );
        let mut object: Object = serde_json::from_str(LINE).unwrap();
        assert_eq!(spellings(LINE.as_bytes()).len(), object.0.len());
        keep_spelling(&mut object, LINE.as_bytes());
        let of = |name: &str| object.0.iter().find(|(column, _)| column == name).unwrap().1.clone();
        assert_eq!(of("e"), "123456789012345678901");
        assert_eq!(of("f"), "-0");
        assert_eq!(of("i"), "0.1234567890123456789012");
        assert_eq!(of("j"), 18_446_744_073_709_551_615_u64);
        assert_eq!(of("k"), "1e-3");
        assert_eq!(of("a,:\"}"), "b,:\"}\\");
    }
}
