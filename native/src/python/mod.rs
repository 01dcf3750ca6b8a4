//! The Python module: values of Python to values of Rust, and back.

mod drafts;
mod outcomes;
mod rows;
mod run;

use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyList, PyString, PyTuple, PyType};

use self::drafts::{Maker, detached};
use self::run::{Run, hash_of};
use crate::answer;
use crate::body::{self, Item};
use crate::canonical::Writer;
use crate::{draft, event};

/// The version of the functions; `compiled.SEAM` of the server must be the same.
const SEAM: u32 = 2;

/// Run a function. A panic becomes an exception, after which the caller goes on in Python.
fn guarded<T>(work: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(PyRuntimeError::new_err("headgate_native panicked; the place is on standard error")))
}

/// The functions of the core, with the classes of the server that they make.
#[pyclass(frozen)]
struct Core {
    draft: Py<PyType>,
    stored_event: Py<PyType>,
    link: Py<PyType>,
    outcome: Py<PyType>,
    accepted: Py<PyAny>,
    duplicate: Py<PyAny>,
    conflict: Py<PyAny>,
    receiver: Py<PyString>,
    tuple_new: Py<PyAny>,
    nothing: Py<PyTuple>,
    value: Py<PyString>,
}

#[pymethods]
impl Core {
    #[new]
    #[allow(clippy::too_many_arguments)]
    fn new(
        py: Python<'_>,
        draft: Py<PyType>,
        stored_event: Py<PyType>,
        link: Py<PyType>,
        outcome: Py<PyType>,
        accepted: Py<PyAny>,
        duplicate: Py<PyAny>,
        conflict: Py<PyAny>,
        receiver: Py<PyString>,
    ) -> PyResult<Self> {
        if receiver.bind(py).to_str()? != draft::RECEIVER {
            return Err(PyTypeError::new_err("the receiver has another name"));
        }
        let tuple_new = py.get_type::<PyTuple>().getattr("__new__")?.unbind();
        let nothing = PyTuple::empty(py).unbind();
        let value = PyString::intern(py, "value").unbind();
        Ok(Core {
            draft,
            stored_event,
            link,
            outcome,
            accepted,
            duplicate,
            conflict,
            receiver,
            tuple_new,
            nothing,
            value,
        })
    }

    /// The twin of `decode.proto_event`, for many events.
    fn decode_events<'py>(
        &self,
        py: Python<'py>,
        serialized: &Bound<'py, PyAny>,
        salts: &Bound<'py, PyList>,
    ) -> PyResult<(Bound<'py, PyList>, Vec<usize>)> {
        guarded(|| self.decode(py, serialized, salts, event::decode))
    }

    /// The twin of `validate.native_json`, for many texts.
    fn decode_texts<'py>(
        &self,
        py: Python<'py>,
        texts: &Bound<'py, PyAny>,
        salts: &Bound<'py, PyList>,
    ) -> PyResult<(Bound<'py, PyList>, Vec<usize>)> {
        guarded(|| self.decode(py, texts, salts, body::decode))
    }

    /// The twin of `decode.json_batch`.
    #[allow(clippy::type_complexity)]
    fn decode_body<'py>(
        &self,
        py: Python<'py>,
        body: &Bound<'py, PyBytes>,
        most: usize,
        salts: &Bound<'py, PyAny>,
    ) -> PyResult<Option<(Bound<'py, PyList>, Vec<(usize, usize, usize, Bound<'py, PyAny>)>, bool, bool)>> {
        guarded(|| {
            let text = body.as_bytes();
            let mut writer = Writer::default();
            let read = detached(py, text.len(), || body::read_batch(text, most, &mut writer));
            let Some(batch) = read else { return Ok(None) };
            let salts = salts.call1((batch.items.len(),))?.cast_into::<PyList>()?;
            let slots = PyList::empty(py);
            let mut left = Vec::new();
            let mut maker = Maker::new(self, py, &writer.out);
            for (position, (item, salt)) in batch.items.iter().zip(salts.iter()).enumerate() {
                match item {
                    Item::Draft(draft) => slots.append(maker.draft(draft, salt)?)?,
                    Item::Left(start, end) => {
                        slots.append(py.None())?;
                        left.push((position, *start, *end, salt));
                    }
                }
            }
            Ok(Some((slots, left, batch.atomic, batch.validate_only)))
        })
    }

    /// The twin of `settle.decide_run`. `known` is changed at the end, when nothing can fail any more.
    #[allow(clippy::too_many_arguments)]
    fn decide_run<'py>(
        &self,
        py: Python<'py>,
        slots: &Bound<'py, PyAny>,
        start: usize,
        randomness: &Bound<'py, PyBytes>,
        known: &Bound<'py, PyDict>,
        workspace_id: &Bound<'py, PyAny>,
        sequence: &Bound<'py, PyAny>,
        previous: &Bound<'py, PyBytes>,
        clock: i64,
        most: i64,
    ) -> PyResult<(Bound<'py, PyList>, Bound<'py, PyList>, Bound<'py, PyBytes>)> {
        guarded(|| {
            let sequence = match sequence.extract::<i64>() {
                // Past 64 bits Python decides.
                Err(error) if error.is_instance_of::<PyOverflowError>(py) => {
                    return Ok((PyList::empty(py), PyList::empty(py), previous.clone()));
                }
                sequence => sequence?,
            };
            let mut run = Run::new(self, known, workspace_id, sequence, clock, hash_of(previous)?);
            let randomness = randomness.as_bytes();
            for index in start..slots.len()? {
                let random = index.checked_mul(8).and_then(|at| randomness.get(at..)?.first_chunk().copied());
                let random = random.ok_or_else(|| PyTypeError::new_err("too little randomness"))?;
                if !run.decide(&slots.get_item(index)?, random, most)? {
                    break;
                }
            }
            run.finish()
        })
    }

    /// The twin of `wire.batch_message`, serialized.
    fn batch_message<'py>(
        &self,
        py: Python<'py>,
        outcomes: &Bound<'py, PyAny>,
        lines: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.written(py, outcomes, lines, |outcomes, out| {
            answer::write_message(outcomes, out);
            Some(())
        })
    }

    /// The twin of `wire.batch_json`, as JSON.
    fn batch_json<'py>(
        &self,
        py: Python<'py>,
        outcomes: &Bound<'py, PyAny>,
        lines: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.written(py, outcomes, lines, answer::write_json)
    }

    /// The twin of `wire.add_results`: the field `results` of a StreamIngestResponse.
    fn stream_results<'py>(
        &self,
        py: Python<'py>,
        outcomes: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyBytes>>> {
        self.written(py, outcomes, &PyTuple::empty(py).into_any(), |outcomes, out| {
            answer::write_results(0x12, outcomes, out);
            Some(())
        })
    }

    /// The twin of asyncpg's `copy_records_to_table`: rows as PostgreSQL's binary COPY.
    fn copy_rows<'py>(&self, rows: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyList>>> {
        rows::copied(rows)
    }

    /// Panic, for the test of what happens then.
    fn panic(&self) -> PyResult<()> {
        guarded(|| panic!("as asked"))
    }
}

impl Core {
    /// Make a named tuple.
    fn tuple<'py, const N: usize>(
        &self,
        py: Python<'py>,
        class: &Py<PyType>,
        fields: [Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        self.tuple_new.bind(py).call1((class.bind(py), PyTuple::new(py, fields)?))
    }
}

/// The compiled core of Headgate.
#[pymodule]
fn headgate_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    // Only the place: the message of a panic may quote an event.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string).unwrap_or_default();
        eprintln!("headgate_native: panic at {place}");
    }));
    module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
    module.add("SEAM", SEAM)?;
    module.add_class::<Core>()
}
