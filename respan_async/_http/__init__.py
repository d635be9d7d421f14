"""HTTP: sends requests and reads what their answers mean."""
