"""The Hugging Face Hub: model cards, uploads, downloads and Spaces."""
