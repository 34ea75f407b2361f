"""What the deployed handlers share. Standard library, ctypes and obstore only: no TensorFlow, numpy or boto3 here."""
