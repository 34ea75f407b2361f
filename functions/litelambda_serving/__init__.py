"""What the deployed handlers share. Standard library, ctypes and obstore only: no TensorFlow, numpy or boto3 here."""

__version__ = "0.1.0"  # of the whole project: the one place
