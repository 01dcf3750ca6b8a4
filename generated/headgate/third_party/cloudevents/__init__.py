"""The messages of the CloudEvents specification."""
