//! Drafts of Rust to drafts of Python.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};

use super::Core;
use crate::canonical::Writer;
use crate::draft::Draft;
use crate::ledger::commitment;

/// Other threads run while so many bytes, or more, are decoded.
const DETACHED_BYTES: usize = 64 * 1024;

/// Run a function that needs nothing of Python; other threads may run meanwhile if it has many bytes to read.
pub fn detached<T: Send>(py: Python<'_>, bytes: usize, work: impl FnOnce() -> T + Send) -> T {
    if bytes < DETACHED_BYTES { work() } else { py.detach(work) }
}

impl Core {
    /// Read each text on its own. Return a draft or None for each, and the positions of the latter.
    pub(super) fn decode<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        salts: &Bound<'py, PyList>,
        read: impl for<'a> Fn(&'a [u8], &mut Writer) -> Option<Draft<'a>> + Sync,
    ) -> PyResult<(Bound<'py, PyList>, Vec<usize>)> {
        let texts = texts.try_iter()?.map(|text| Ok(text?.cast_into::<PyBytes>()?)).collect::<PyResult<Vec<_>>>()?;
        if texts.len() != salts.len() {
            return Err(PyTypeError::new_err("there must be as many salts as events"));
        }
        let bytes: Vec<&[u8]> = texts.iter().map(|text| text.as_bytes()).collect();
        let size = bytes.iter().map(|text| text.len()).sum();
        let mut writer = Writer::default();
        let drafts: Vec<Option<Draft<'_>>> =
            detached(py, size, || bytes.iter().map(|text| read(text, &mut writer)).collect());
        let slots = PyList::empty(py);
        let mut left = Vec::new();
        let mut maker = Maker::new(self, py, &writer.out);
        for (position, (draft, salt)) in drafts.iter().zip(salts.iter()).enumerate() {
            match draft {
                Some(draft) => slots.append(maker.draft(draft, salt)?)?,
                None => {
                    slots.append(py.None())?;
                    left.push(position);
                }
            }
        }
        Ok((slots, left))
    }
}

/// Makes drafts of Python. Texts that the draft before had too are made once.
pub struct Maker<'a, 'py> {
    core: &'a Core,
    py: Python<'py>,
    written: &'a [u8],
    kind: Option<(String, Bound<'py, PyAny>)>,
    source: Option<(String, Bound<'py, PyAny>)>,
    none: Bound<'py, PyAny>,
}

impl<'a, 'py> Maker<'a, 'py> {
    /// `written` is what the writer of the drafts wrote.
    pub fn new(core: &'a Core, py: Python<'py>, written: &'a [u8]) -> Self {
        Maker { core, py, written, kind: None, source: None, none: py.None().into_bound(py) }
    }

    /// Make a draft with a salt.
    pub fn draft(&mut self, draft: &Draft<'_>, salt: Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py;
        let salt = salt.cast_into::<PyBytes>()?;
        let content = &self.written[draft.content.clone()];
        let commitment = commitment(salt.as_bytes(), content);
        let fields = &draft.fields;
        let kind = remembered(py, &mut self.kind, &fields.kind);
        let source = remembered(py, &mut self.source, &fields.source);
        let none = || self.none.clone();
        let (scope, key, dedupe, identity) = match (&fields.key, &draft.identity) {
            (Some(key), Some(identity)) => (
                source.clone(),
                PyString::new(py, key).into_any(),
                PyBytes::new(py, &identity[..16]).into_any(),
                PyBytes::new(py, identity).into_any(),
            ),
            _ => (none(), none(), none(), PyBytes::new(py, b"").into_any()),
        };
        let occurred_at = match fields.occurred_at {
            Some(moment) => moment.into_pyobject(py)?.into_any(),
            None => none(),
        };
        let data = match &draft.data {
            Some(place) => PyBytes::new(py, &self.written[place.clone()]).into_any(),
            None => none(),
        };
        let core = self.core;
        core.tuple(
            py,
            &core.draft,
            [
                core.receiver.bind(py).clone().into_any(),
                kind,
                source,
                PyString::new(py, &fields.subject).into_any(),
                occurred_at,
                data,
                scope,
                key,
                dedupe,
                salt.into_any(),
                PyBytes::new(py, &commitment).into_any(),
                identity,
                PyBytes::new(py, content).into_any(),
                core.conflict.bind(py).clone(),
                core.nothing.bind(py).clone().into_any(),
                none(),
                none(),
            ],
        )
    }
}

fn remembered<'py>(py: Python<'py>, last: &mut Option<(String, Bound<'py, PyAny>)>, text: &str) -> Bound<'py, PyAny> {
    if let Some((known, object)) = last
        && known == text
    {
        return object.clone();
    }
    let object = PyString::new(py, text).into_any();
    *last = Some((text.to_owned(), object.clone()));
    object
}
