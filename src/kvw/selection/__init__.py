"""How strong an edit is to be: the weakest that forgets everything, within what must stay."""
