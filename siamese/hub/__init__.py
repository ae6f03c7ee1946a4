"""The Hugging Face Hub: model cards, upload, download and Spaces."""
