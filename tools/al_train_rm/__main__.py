"""python -m al_train_rm"""

from al_train_rm import main

main()
